"""Shares the partitions among the live dispatchers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.errors import AbortedError
from services.scheduler.domain.partitions import PartitionTable, release, renew
from services.scheduler.usecases.ports.partition_store import PartitionStore

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
    """The table as this replica wrote it last."""
    _alone: bool = field(default=False, init=False)
    """Whether no other replica seems to write it. Then a write needs no read; should one write, it fails."""

    async def __call__(self, dispatcher_id: str, lease: timedelta) -> PartitionLease:
        """Renew a dispatcher's lease.

        Raises:
            AbortedError: too many dispatchers wrote at once; try again.
        """
        for _ in range(MAX_TRIES):
            table = await self._read()
            now = self.clock.now()
            expire_time = now + lease
            renewed = renew(table, dispatcher_id, expire_time, now)
            if await self._write(renewed, table.version):
                return PartitionLease(renewed.held_by(dispatcher_id), expire_time, len(renewed.leases))
        raise _contention()

    async def release(self, dispatcher_id: str) -> None:
        """Give back all that a draining dispatcher holds.

        Raises:
            AbortedError: too many dispatchers wrote at once; the lease runs out by itself.
        """
        for _ in range(MAX_TRIES):
            # Read in any case: what was written here last may not know the dispatcher yet.
            table = await self.partitions.read()
            if dispatcher_id not in table.leases:
                return
            if await self._write(release(table, dispatcher_id), table.version):
                return
        raise _contention()

    async def _read(self) -> PartitionTable:
        if self._alone and self._written is not None:
            return self._written
        table = await self.partitions.read()
        self._alone = self._written is not None and self._written.version == table.version
        return table

    async def _write(self, table: PartitionTable, expected_version: int) -> bool:
        if not await self.partitions.write(table, expected_version):
            self._alone = False
            return False
        self._written = table
        return True


def _contention() -> AbortedError:
    return AbortedError("PARTITION_CONTENTION", f"the partition table changed {MAX_TRIES} times during one write")
