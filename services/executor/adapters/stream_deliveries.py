"""The deliveries over the stream of due ids; protos end here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from libs.common.streams.due_stream import Reaped, ReceivedEntry
from services.executor.adapters.proto_time import instant_of
from services.executor.usecases.ports import Entry


class Stream(Protocol):
    """The part of `DueStream` that executors use."""

    async def read(self, shard: int, consumer: str, count: int, block_ms: int) -> list[ReceivedEntry]:
        """Take undelivered entries."""
        ...

    async def acknowledge(self, shard: int, stream_ids: Sequence[str]) -> None:
        """Remove entries for good."""
        ...

    async def reap(self, shard: int, consumer: str, min_idle_ms: int) -> Reaped:
        """Drop what dead consumers hold."""
        ...


class StreamDeliveries:
    """Implements `Deliveries` for one consumer, which is this process."""

    def __init__(self, stream: Stream, consumer: str, min_idle_seconds: float) -> None:
        self._stream = stream
        self._consumer = consumer
        self._min_idle_ms = int(min_idle_seconds * 1000)

    async def read(self, shard: int, max_entries: int, block_seconds: float) -> list[Entry]:
        """Return new entries of a shard."""
        received = await self._stream.read(shard, self._consumer, max_entries, int(block_seconds * 1000))
        return [
            Entry(item.shard, item.stream_id, item.entry.execution_id, instant_of(item.entry.due_time))
            for item in received
        ]

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Take entries off their streams, one pipelined round trip for each shard."""
        by_shard: defaultdict[int, list[str]] = defaultdict(list)
        for entry in entries:
            by_shard[entry.shard].append(entry.entry_id)
        for shard, entry_ids in by_shard.items():
            await self._stream.acknowledge(shard, entry_ids)

    async def reap(self, shard: int) -> int:
        """Take entries off a shard that nobody has acknowledged for long."""
        return (await self._stream.reap(shard, self._consumer, self._min_idle_ms)).entries
