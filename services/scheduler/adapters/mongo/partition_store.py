"""The partition table in MongoDB: one document, written by compare-and-set on its version."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from services.scheduler.adapters.mongo.documents import PartitionTableDocument
from services.scheduler.domain.job import PARTITION_COUNT
from services.scheduler.domain.partitions import PartitionTable

_TABLE_ID = "partitions"


class MongoPartitionStore:
    """Implements `PartitionStore`."""

    async def read(self) -> PartitionTable:
        """Return the table; an empty one before the first write."""
        document = await PartitionTableDocument.get(_TABLE_ID)
        if document is None:
            return PartitionTable(leases={}, holders={})
        holders = {partition: holder for partition, holder in enumerate(document.holders) if holder}
        return PartitionTable(document.leases, holders, document.version)

    async def write(self, table: PartitionTable, expected_version: int) -> bool:
        """Store the table; False when somebody else wrote since it was read."""
        fields = {
            "version": table.version,
            # Ids of processes hold dots (host names), which are no trouble in values but would be in paths.
            "leases": dict(table.leases),
            "holders": [table.holders.get(partition, "") for partition in range(PARTITION_COUNT)],
        }
        try:
            result = await PartitionTableDocument.get_pymongo_collection().replace_one(
                {"_id": _TABLE_ID, "version": expected_version}, fields, upsert=expected_version == 0
            )
        except DuplicateKeyError:
            return False
        return result.matched_count == 1 or result.upserted_id is not None
