"""The stream of due executions in memory, with the failures that tests want: away, flushed, unreadable entries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from punctual.internal.v1.stream_entry_pb2 import StreamEntry

from libs.common.clock import Clock
from libs.common.errors import UnavailableError
from libs.common.lifecycle import first_of
from libs.common.streams.due_stream import MAX_BLOCK_MS, Reaped, ReceivedEntry

_CONSUMER_IDLE_SECONDS = 600.0


@dataclass(slots=True)
class _Pending:
    """A delivered entry: who holds it, and since when."""

    consumer: str
    since: float


@dataclass(slots=True)
class _Shard:
    """One shard: entries not yet delivered, those in flight, and when each consumer last read."""

    waiting: dict[str, StreamEntry] = field(default_factory=dict)
    pending: dict[str, _Pending] = field(default_factory=dict)
    consumers: dict[str, float] = field(default_factory=dict)
    readers: list[asyncio.Future[None]] = field(default_factory=list)
    """Those that wait for entries; futures of their own event loops, of which a simulation has many."""

    def wake(self) -> None:
        """Let all that wait look again; the first one takes what there is."""
        for reader in self.readers:
            if not reader.done():
                reader.set_result(None)
        self.readers.clear()


class FakeDueStream:
    """Does what `DueStream` does, on a clock of the test's choosing. `available = False` makes every method fail."""

    def __init__(self, clock: Clock, *, shards: int = 1) -> None:
        self.available = True
        self._clock = clock
        self._shards = [_Shard() for _ in range(shards)]
        self._last_id = 0

    @property
    def shards(self) -> int:
        """How many shards there are, numbered from 0."""
        return len(self._shards)

    def entries(self, shard: int = 0) -> list[StreamEntry]:
        """Return what waits for delivery, in order."""
        return list(self._shards[shard].waiting.values())

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self._shards = [_Shard() for _ in self._shards]

    async def ensure_group(self) -> None:
        """Do nothing: reading needs no group here."""
        self._require()

    async def add(self, entries: Sequence[tuple[int, StreamEntry]]) -> None:
        """Append (partition, entry) pairs."""
        self._require()
        for partition, entry in entries:
            shard = self._shards[partition % len(self._shards)]
            self._last_id += 1
            shard.waiting[f"{self._last_id}-0"] = entry
            shard.wake()

    async def read(self, shard: int, consumer: str, count: int, block_ms: int) -> list[ReceivedEntry]:
        """Take up to `count` undelivered entries, waiting up to `block_ms`."""
        self._require()
        state = self._shards[shard]
        state.consumers[consumer] = self._clock.monotonic()
        if not state.waiting and block_ms > 0:
            arrived = asyncio.get_running_loop().create_future()
            state.readers.append(arrived)
            await first_of(self._clock.sleep(min(block_ms, MAX_BLOCK_MS) / 1000), arrived)
            self._require()
        now = self._clock.monotonic()
        state.consumers[consumer] = now
        taken = list(state.waiting)[:count]
        for stream_id in taken:
            state.pending[stream_id] = _Pending(consumer, now)
        return [ReceivedEntry(stream_id, shard, state.waiting.pop(stream_id)) for stream_id in taken]

    async def acknowledge(self, shard: int, stream_ids: Sequence[str]) -> None:
        """Remove entries for good."""
        self._require()
        for stream_id in stream_ids:
            self._shards[shard].pending.pop(stream_id, None)
            self._shards[shard].waiting.pop(stream_id, None)

    async def backlog(self, shard: int) -> int:
        """Return how many entries wait for delivery."""
        self._require()
        return len(self._shards[shard].waiting)

    async def reap(self, shard: int, consumer: str, min_idle_ms: int) -> Reaped:
        """Drop entries held for `min_idle_ms`, and consumers long gone that hold nothing."""
        self._require()
        state, now = self._shards[shard], self._clock.monotonic()
        stale = [stream_id for stream_id, held in state.pending.items() if now - held.since >= min_idle_ms / 1000]
        await self.acknowledge(shard, stale)
        state.consumers[consumer] = now
        holders = {held.consumer for held in state.pending.values()}
        limit = max(_CONSUMER_IDLE_SECONDS, min_idle_ms / 1000)
        gone = [
            name
            for name, seen in state.consumers.items()
            if name != consumer and name not in holders and now - seen >= limit
        ]
        for name in gone:
            del state.consumers[name]
        return Reaped(len(stale), len(gone))

    async def close(self) -> None:
        """Close nothing."""

    def _require(self) -> None:
        if not self.available:
            raise UnavailableError("STREAM_UNAVAILABLE", "Redis: made unavailable by the test")
