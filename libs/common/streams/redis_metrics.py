"""Measures what Redis is asked: how long each kind of operation takes, and whether it failed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from punctual.internal.v1.stream_entry_pb2 import StreamEntry

from libs.common.metrics import LATENCY_BUCKETS, Metrics
from libs.common.streams.connection import RedisClient
from libs.common.streams.due_stream import DueStream, Reaped, ReceivedEntry


class RedisMetrics:
    """Latency by operation and outcome; operations are named by our own code."""

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = metrics.histogram(
            "redis_operation_duration_seconds",
            "How long Redis took, by what it was asked; `read` waits up to a second for entries.",
            ("operation", "outcome"),
            buckets=LATENCY_BUCKETS,
        )
        self.dead_letters = metrics.counter(
            "stream_dead_letters", "Entries of the stream that nobody could read and that were put aside."
        )
        self._children: dict[tuple[str, str], Any] = {}

    @contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Measure what runs inside; a cancelled wait is no operation."""
        began = time.perf_counter()
        try:
            yield
        except Exception:
            self._child(operation, "error").observe(time.perf_counter() - began)
            raise
        self._child(operation, "ok").observe(time.perf_counter() - began)

    def _child(self, operation: str, outcome: str) -> Any:
        child = self._children.get((operation, outcome))
        if child is None:
            child = self._children[operation, outcome] = self._seconds.labels(operation, outcome)
        return child


class MeasuredDueStream(DueStream):
    """The stream of due executions, measured."""

    def __init__(self, redis: RedisClient, measure: RedisMetrics, *, key_prefix: str, shards: int) -> None:
        super().__init__(redis, key_prefix=key_prefix, shards=shards)
        self._measure = measure

    async def add(self, entries: Sequence[tuple[int, StreamEntry]]) -> None:
        """Append (partition, entry) pairs."""
        with self._measure.timed("add"):
            await super().add(entries)

    async def read(self, shard: int, consumer: str, count: int, block_ms: int) -> list[ReceivedEntry]:
        """Take undelivered entries."""
        with self._measure.timed("read"):
            return await super().read(shard, consumer, count, block_ms)

    async def acknowledge(self, shard: int, stream_ids: Sequence[str]) -> None:
        """Remove entries for good."""
        with self._measure.timed("acknowledge"):
            await super().acknowledge(shard, stream_ids)

    async def backlog(self, shard: int) -> int:
        """Return how many entries of the shard no consumer has been given yet."""
        with self._measure.timed("backlog"):
            return await super().backlog(shard)

    async def reap(self, shard: int, consumer: str, min_idle_ms: int) -> Reaped:
        """Drop what dead consumers hold."""
        with self._measure.timed("reap"):
            return await super().reap(shard, consumer, min_idle_ms)

    async def _put_aside(self, shard: int, unreadable: dict[str, dict[bytes, bytes]]) -> None:
        self._measure.dead_letters.inc(len(unreadable))
        await super()._put_aside(shard, unreadable)
