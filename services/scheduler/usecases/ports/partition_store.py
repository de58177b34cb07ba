"""The record of the partitions' leases."""

from __future__ import annotations

from typing import Protocol

from services.scheduler.domain.partitions import PartitionTable


class PartitionStore(Protocol):
    """The one record of who looks after which partition."""

    async def read(self) -> PartitionTable:
        """Return the table; an empty one before the first write."""
        ...

    async def write(self, table: PartitionTable, expected_version: int) -> bool:
        """Store the table; False when somebody else wrote since it was read."""
        ...
