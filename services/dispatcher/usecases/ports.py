"""What the dispatcher needs of the world. Every method may raise UnavailableError: nothing happened that matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.dispatcher.domain.due_heap import DueEntry


@dataclass(frozen=True, slots=True)
class Acquired:
    """An answer of the scheduler: what comes due, and whether more is due right now."""

    entries: Sequence[DueEntry]
    more: bool


@dataclass(frozen=True, slots=True)
class PartitionLease:
    """The partitions held until `expire_time` by the scheduler's clock, and how many dispatchers share them all."""

    partitions: tuple[int, ...]
    expire_time: datetime
    dispatcher_count: int


class Scheduler(Protocol):
    """The scheduler, which stores everything and decides everything."""

    async def acquire_due(
        self, partitions: Sequence[int], *, horizon_seconds: float, limit: int, wait_seconds: float
    ) -> Acquired:
        """Materialize and return what comes due within the horizon; with nothing due, wait for it that long."""
        ...

    async def lease_partitions(self, lease_seconds: float) -> PartitionLease:
        """Renew this dispatcher's partitions, or get its share of the free ones."""
        ...

    async def release_partitions(self) -> None:
        """Give all partitions back, so that others need not wait for the lease to end."""
        ...


class Stream(Protocol):
    """The stream of due executions, a buffer that may lose everything."""

    async def add(self, entries: Sequence[DueEntry]) -> None:
        """Append the entries in one round trip. After an error, any of them may have been appended."""
        ...

    async def backlog(self) -> int:
        """Return how many entries no executor has taken yet."""
        ...
