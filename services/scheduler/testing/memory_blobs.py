"""Blobs and their records in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from libs.common.errors import NotFoundError
from services.scheduler.domain.answer_blob import BlobRecord
from services.scheduler.testing.checkpoint import Checkpoint, as_stored, no_checkpoint, operation


class MemoryBlobs:
    """Implements `BlobStore`."""

    def __init__(self, checkpoint: Checkpoint = no_checkpoint) -> None:
        self._checkpoint = checkpoint
        self.blobs: dict[str, bytes] = {}

    async def write(self, blob_id: str, chunks: AsyncIterator[bytes]) -> None:
        """Store bytes under a new id."""
        async with operation(self._checkpoint, "blobs.write"):
            self.blobs[blob_id] = b"".join([chunk async for chunk in chunks])

    async def open_stream(self, blob_id: str) -> AsyncIterator[bytes]:
        """Return an answer's stored bytes in parts."""
        if blob_id not in self.blobs:
            raise NotFoundError("blob", blob_id)
        yield self.blobs[blob_id]

    async def delete(self, blob_id: str) -> None:
        """Remove a blob."""
        async with operation(self._checkpoint, "blobs.delete"):
            self.blobs.pop(blob_id, None)


class MemoryBlobRecords:
    """Implements `BlobRecords`."""

    def __init__(self, checkpoint: Checkpoint = no_checkpoint) -> None:
        self._checkpoint = checkpoint
        self.records: dict[str, BlobRecord] = {}

    async def insert(self, record: BlobRecord) -> None:
        """Store the record of a new blob."""
        async with operation(self._checkpoint, "blob_records.insert"):
            self.records[record.blob_id] = as_stored(record)

    async def find_due(self, now: datetime, limit: int) -> Sequence[BlobRecord]:
        """Return records whose check has come due, the longest overdue first."""
        due = [record for record in self.records.values() if record.check_time <= now]
        return sorted(due, key=lambda record: record.check_time)[:limit]

    async def postpone(self, check_times: Mapping[str, datetime]) -> None:
        """Move checks, by blob id."""
        async with operation(self._checkpoint, "blob_records.postpone"):
            for blob_id, time in check_times.items():
                if blob_id in self.records:
                    self.records[blob_id] = as_stored(replace(self.records[blob_id], check_time=time))

    async def remove(self, blob_ids: Sequence[str]) -> None:
        """Remove records."""
        async with operation(self._checkpoint, "blob_records.remove"):
            for blob_id in blob_ids:
                self.records.pop(blob_id, None)
