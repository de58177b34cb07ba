"""The database and the stream that all processes share, with their delays and their errors.

The stores are the in-memory ones that the contract tests hold to MongoDB's semantics. Each operation is atomic there;
here a batch is often cut into several, as MongoDB's bulk writes may be interleaved with others' writes and may come to
pass in part. An error comes before the effect or after it; whoever gets it does not know which.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from random import Random
from typing import TypeVar

from punctual.internal.v1.stream_entry_pb2 import StreamEntry

from libs.common.errors import UnavailableError
from libs.common.streams.due_stream import Reaped, ReceivedEntry
from libs.common.testing.fake_due_stream import FakeDueStream
from services.scheduler.domain.execution import Execution
from services.scheduler.testing.checkpoint import Checkpoint
from services.scheduler.testing.memory_due_probe import MemoryDueProbe
from services.scheduler.testing.memory_execution_store import MemoryExecutionStore
from services.scheduler.testing.memory_job_store import MemoryJobStore
from services.scheduler.testing.memory_partition_store import MemoryPartitionStore
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.ports.execution_writes import FinishWrite, GrantResult, GrantWrite, Lease, WaitWrite
from services.scheduler.usecases.ports.job_store import CursorMove
from tests.support.simulation.kernel import Kernel, Nap, ProcessLoop, nap
from tests.support.simulation.plan import FAIR

RETENTION = timedelta(days=30)
_T = TypeVar("_T")


class World:
    """The true time, and sleeps on whichever process's loop asks: the clock of what belongs to no process."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.now = kernel.now

    def monotonic(self) -> float:
        return self._kernel.micros / 1e6

    def sleep(self, seconds: float) -> Nap:
        return nap(asyncio.get_running_loop(), seconds)


class Storage:
    """The stores, what they do to those who use them, and who looks on."""

    def __init__(self, kernel: Kernel, rng: Random) -> None:
        self.weather = FAIR
        self.world = World(kernel)
        self.on_written: Callable[[str], None] = lambda _: None
        """Called after each operation, before anybody hears of its end."""
        self._rng = rng
        self.jobs = SplitJobs(rng, self._checkpoint)
        self.executions = SplitExecutions(rng, self.world, self._checkpoint)
        self.partitions = MemoryPartitionStore(self._checkpoint)
        self.due = MemoryDueProbe(self.jobs, self.executions, self._checkpoint)
        self.stream = FakeDueStream(self.world)

    def jobs_of_new_replica(self) -> SplitJobs:
        """Return the jobs as a new replica has them: the same records, of which it remembers nothing."""
        jobs = copy.copy(self.jobs)
        jobs._recalled = {}
        return jobs

    async def _checkpoint(self, name: str) -> None:
        if name.endswith(".after"):
            self.on_written(name)
        chance = self._rng.random()
        if chance < self.weather.database_error:
            raise UnavailableError("DATABASE_UNAVAILABLE", name)
        if chance > 1 - self.weather.database_slow:
            await self.world.sleep(self._rng.choice((0.02, 0.3, 2.0, 6.0)) * self._rng.random())
        elif chance > 0.7:
            await self.world.sleep(0.003 * self._rng.random())


class SplitJobs(MemoryJobStore):
    """Jobs whose batches come to pass in parts."""

    def __init__(self, rng: Random, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self._rng = rng

    async def advance(self, moves: Sequence[CursorMove]) -> None:
        for part in parts(self._rng, moves):
            await super().advance(part)


class SplitExecutions(MemoryExecutionStore):
    """Executions whose batches come to pass in parts, and of which each replica remembers what it wrote itself."""

    def __init__(self, rng: Random, world: World, checkpoint: Checkpoint) -> None:
        super().__init__(RETENTION, world, checkpoint)
        self._rng = rng
        self._written: dict[str, list[Execution]] = {}
        """As inserted and as granted; any of them may be the last that one of the replicas has written."""

    def recall(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        # In an order of its own: that of a set differs between processes, and a seed takes one way.
        written = {e_id: self._written[e_id] for e_id in sorted(execution_ids) if e_id in self._written}
        return {e_id: self._rng.choice(states) for e_id, states in written.items() if self._rng.random() < 0.8}

    def _note_written(self, execution_ids: Iterable[str]) -> None:
        for execution_id in execution_ids:
            states = self._written.setdefault(execution_id, [])
            latest = self._recalled.get(execution_id)
            if latest is not None and latest not in states:
                states.append(latest)

    async def insert_new(self, executions: Sequence[Execution], *, audit: AuditEvent | None = None) -> None:
        for part in parts(self._rng, executions):
            await super().insert_new(part, audit=audit)
            self._note_written(execution.execution_id for execution in part)

    async def grant(self, lease: Lease, grants: Sequence[GrantWrite]) -> GrantResult:
        results = [await super(SplitExecutions, self).grant(lease, part) for part in parts(self._rng, grants)]
        self._note_written(grant.execution.execution_id for grant in grants)
        return GrantResult(
            frozenset().union(*(result.granted for result in results)),
            frozenset().union(*(result.overlapping for result in results)),
        )

    async def finish(self, writes: Sequence[FinishWrite]) -> frozenset[str]:
        return frozenset().union(
            *[await super(SplitExecutions, self).finish(part) for part in parts(self._rng, writes)]
        )

    async def wait(self, writes: Sequence[WaitWrite]) -> frozenset[str]:
        return frozenset().union(*[await super(SplitExecutions, self).wait(part) for part in parts(self._rng, writes)])

    async def settled(self, execution_ids: Collection[str]) -> None:
        for part in parts(self._rng, sorted(execution_ids)):
            await super().settled(part)


def parts(rng: Random, items: Sequence[_T]) -> Iterable[Sequence[_T]]:
    """Return a batch as it is, or cut into two or more."""
    if len(items) < 2 or rng.random() < 0.6:
        return (items,)
    cut = rng.randrange(1, len(items))
    return (items[:cut], *parts(rng, items[cut:]))


class StreamConnection:
    """The due stream as one process reaches it: `DueStream`'s methods, with delays and errors of this connection."""

    def __init__(self, storage: Storage, rng: Random, loop: ProcessLoop) -> None:
        self._storage = storage
        self._stream = storage.stream
        self._rng = rng
        self._loop = loop

    @property
    def shards(self) -> int:
        return self._stream.shards

    async def add(self, entries: Sequence[tuple[int, StreamEntry]]) -> None:
        await self._on_the_way()
        await self._stream.add(entries)
        if self._rng.random() < self._storage.weather.stream_doubled:
            await self._stream.add(entries)
        await self._on_the_way()

    async def read(self, shard: int, consumer: str, count: int, block_ms: int) -> list[ReceivedEntry]:
        await self._on_the_way()
        entries = await self._stream.read(shard, consumer, count, block_ms)
        if entries:
            await self._on_the_way()
        return entries

    async def acknowledge(self, shard: int, stream_ids: Sequence[str]) -> None:
        await self._on_the_way()
        await self._stream.acknowledge(shard, stream_ids)

    async def backlog(self, shard: int) -> int:
        return await self._stream.backlog(shard)

    async def reap(self, shard: int, consumer: str, min_idle_ms: int) -> Reaped:
        return await self._stream.reap(shard, consumer, min_idle_ms)

    async def _on_the_way(self) -> None:
        chance = self._rng.random()
        if chance < self._storage.weather.stream_error:
            raise UnavailableError("STREAM_UNAVAILABLE", "a message was lost")
        if chance > 0.5:
            await self._storage.world.sleep(0.002 * self._rng.random())


def held_slots(executions: MemoryExecutionStore) -> Mapping[str, tuple[str, str]]:
    """Return the overlap and queue slots of each record that holds one."""
    return {
        execution_id: (record.overlap_slot, record.queue_slot)
        for execution_id, record in executions._records.items()
        if record.overlap_slot or record.queue_slot
    }
