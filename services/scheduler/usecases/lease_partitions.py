"""Shares the partitions among the live dispatchers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.errors import AbortedError
from services.scheduler.domain.partitions import PartitionTable, release, renew
from services.scheduler.usecases.ports import PartitionStore

MAX_TRIES = 20
"""Lost races before a renewal gives up; the dispatcher renews again long before its lease ends."""


@dataclass(frozen=True, slots=True)
class PartitionLease:
    """What a dispatcher holds, until when, and among how many."""

    partitions: tuple[int, ...]
    expire_time: datetime
    dispatcher_count: int


@dataclass(slots=True)
class LeasePartitions:
    """Renews, grants and takes back partition leases, one compare-and-set on one record each."""

    partitions: PartitionStore
    clock: Clock
    _written: PartitionTable | None = field(default=None, init=False)
    """The table as this replica wrote it last. Where another one wrote since, a compare-and-set on it fails."""

    async def __call__(self, dispatcher_id: str, lease: timedelta) -> PartitionLease:
        """Renew a dispatcher's lease.

        Raises:
            AbortedError: too many dispatchers wrote at once; try again.
        """
        for _ in range(MAX_TRIES):
            table = self._take_written() or await self.partitions.read()
            now = self.clock.now()
            expire_time = now + lease
            renewed = renew(table, dispatcher_id, expire_time, now)
            if await self.partitions.write(renewed, table.version):
                self._written = renewed
                return PartitionLease(renewed.held_by(dispatcher_id), expire_time, len(renewed.leases))
        raise _contention()

    async def release(self, dispatcher_id: str) -> None:
        """Give back all that a draining dispatcher holds.

        Raises:
            AbortedError: too many dispatchers wrote at once; the lease runs out by itself.
        """
        for _ in range(MAX_TRIES):
            table: PartitionTable = await self.partitions.read()
            if dispatcher_id not in table.leases:
                return
            if await self.partitions.write(release(table, dispatcher_id), table.version):
                return
        raise _contention()

    def _take_written(self) -> PartitionTable | None:
        """Return the table to try first, once: each write needs one that is known to be newer."""
        written, self._written = self._written, None
        return written


def _contention() -> AbortedError:
    return AbortedError("PARTITION_CONTENTION", f"the partition table changed {MAX_TRIES} times during one write")
