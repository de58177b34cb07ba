"""The partition table in memory, written by compare-and-set on its version."""

from __future__ import annotations

from services.scheduler.domain.partitions import PartitionTable
from services.scheduler.testing.checkpoint import Checkpoint, no_checkpoint, operation


class MemoryPartitionStore:
    """Implements `PartitionStore`."""

    def __init__(self, checkpoint: Checkpoint = no_checkpoint) -> None:
        self._checkpoint = checkpoint
        self._table = PartitionTable(leases={}, holders={})

    async def read(self) -> PartitionTable:
        """Return the table; an empty one before the first write."""
        async with operation(self._checkpoint, "partitions.read"):
            return self._table

    async def write(self, table: PartitionTable, expected_version: int) -> bool:
        """Store the table; False when somebody else wrote since it was read."""
        async with operation(self._checkpoint, "partitions.write"):
            matched = self._table.version == expected_version
            if matched:
                self._table = PartitionTable(dict(table.leases), dict(table.holders), table.version)
        return matched
