"""The records of blobs in MongoDB, wherever the bytes are: what the sweep goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection

from services.scheduler.adapters.mongo.documents import BlobDocument
from services.scheduler.domain.answer_blob import BlobRecord


class MongoBlobRecords:
    """Implements `BlobRecords`."""

    @property
    def _blobs(self) -> AsyncCollection[dict[str, Any]]:
        return BlobDocument.get_pymongo_collection()

    async def insert(self, record: BlobRecord) -> None:
        """Store the record of a new blob durably."""
        await self._blobs.insert_one(
            {
                "_id": record.blob_id,
                "execution_id": record.execution_id,
                "fencing_token": record.fencing_token,
                "check_time": record.check_time,
            }
        )

    async def find_due(self, now: datetime, limit: int) -> Sequence[BlobRecord]:
        """Return records whose check has come due, the longest overdue first."""
        cursor = self._blobs.find({"check_time": {"$lte": now}}, sort=[("check_time", 1)], limit=limit, hint="check")
        return [
            BlobRecord(document["_id"], document["execution_id"], document["fencing_token"], document["check_time"])
            async for document in cursor
        ]

    async def postpone(self, check_times: Mapping[str, datetime]) -> None:
        """Move checks, by blob id."""
        await self._blobs.bulk_write(
            [UpdateOne({"_id": blob_id}, {"$set": {"check_time": time}}) for blob_id, time in check_times.items()],
            ordered=False,
        )

    async def remove(self, blob_ids: Sequence[str]) -> None:
        """Remove records."""
        await self._blobs.delete_many({"_id": {"$in": list(blob_ids)}})
