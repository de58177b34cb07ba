"""The dispatcher's ports in memory, with the failures that tests want."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from libs.common.errors import UnavailableError
from libs.common.lifecycle import first_of
from libs.common.testing.fake_clock import FakeClock
from services.dispatcher.domain.due_heap import DueEntry
from services.dispatcher.usecases.ports import Acquired, PartitionLease

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def entry(name: str, due_seconds: float = 0, *, org: str = "o", partition: int = 0) -> DueEntry:
    """Return an entry due that many seconds after T0."""
    return DueEntry(name, f"job-{name}", org, T0 + timedelta(seconds=due_seconds), partition)


@dataclass
class AcquireCall:
    """What was asked of the scheduler."""

    partitions: tuple[int, ...]
    limit: int
    horizon_seconds: float
    wait_seconds: float


@dataclass
class FakeScheduler:
    """Answers acquire calls from a queue; with none it waits as long as asked, as the real one does."""

    clock: FakeClock
    partitions: tuple[int, ...] = (0, 1)
    ahead: timedelta = timedelta(0)
    available: bool = True
    waits: bool = True
    answers: deque[Acquired] = field(default_factory=deque)
    calls: list[AcquireCall] = field(default_factory=list)
    leases: int = 0
    released: bool = False
    renews: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, renewals of leases hang."""
    _given: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.renews.set()

    def give(self, *entries: DueEntry, more: bool = False) -> None:
        self.answers.append(Acquired(entries, more))
        self._given.set()

    async def acquire_due(
        self, partitions: Sequence[int], *, horizon_seconds: float, limit: int, wait_seconds: float
    ) -> Acquired:
        self._require()
        self.calls.append(AcquireCall(tuple(partitions), limit, horizon_seconds, wait_seconds))
        if not self.answers and self.waits:
            self._given.clear()
            await first_of(self.clock.sleep(wait_seconds), self._given.wait())
        return self.answers.popleft() if self.answers else Acquired([], more=False)

    async def lease_partitions(self, lease_seconds: float) -> PartitionLease:
        await self.renews.wait()
        self._require()
        self.leases += 1
        return PartitionLease(self.partitions, self.clock.now() + self.ahead + timedelta(seconds=lease_seconds), 1)

    async def release_partitions(self) -> None:
        self._require()
        self.released = True

    def _require(self) -> None:
        if not self.available:
            raise UnavailableError("UNAVAILABLE", "made unavailable by the test")


@dataclass
class FakeStream:
    """Remembers batches and when they came; `taken` is how many of them executors have read."""

    clock: FakeClock
    available: bool = True
    taken: int = 0
    batches: list[tuple[datetime, list[str]]] = field(default_factory=list)

    @property
    def delivered(self) -> list[str]:
        return [name for _, names in self.batches for name in names]

    async def add(self, entries: Sequence[DueEntry]) -> None:
        if not self.available:
            raise UnavailableError("STREAM_UNAVAILABLE", "made unavailable by the test")
        self.batches.append((self.clock.now(), [item.execution_id for item in entries]))

    async def backlog(self) -> int:
        if not self.available:
            raise UnavailableError("STREAM_UNAVAILABLE", "made unavailable by the test")
        return len(self.delivered) - self.taken
