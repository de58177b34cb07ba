"""Takes in answers that are too large for a report, and removes those that nothing refers to any more.

An upload leaves a record first, then the bytes, and refers to neither: that is the report's business. Each upload has a
name of its own below its lease's, so that two of one lease, when the executor repeats a call whose answer was lost, do
not meet; the report names one of them. What a report never named, was replaced by the answer of a later attempt, or
outlived its execution, the sweep finds by its record. Bytes without a record do not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from libs.common.errors import FailedPreconditionError, InvalidArgumentError, PunctualError, ResourceExhaustedError
from libs.common.ids import new_id
from libs.common.logs import get_logger
from services.scheduler.domain.answer_blob import CHECK_INTERVAL, MAX_BLOB_BYTES, BlobRecord, next_check
from services.scheduler.domain.execution import ExecutionState
from services.scheduler.usecases.ports.answer_quota import AnswerQuota
from services.scheduler.usecases.ports.blob_store import BlobStore
from services.scheduler.usecases.ports.execution_store import ExecutionStore

MAX_UPLOADS = 8
"""Uploads that a replica writes at a time; others wait, and their bytes with their executors."""

MAX_DELETIONS = 8
"""Blobs that the sweep removes at a time."""

log = get_logger(__name__)


class BlobRecords(Protocol):
    """What is known of blobs beside their bytes. One writer: the scheduler."""

    async def insert(self, record: BlobRecord) -> None:
        """Store the record of a new blob durably."""
        ...

    async def find_due(self, now: datetime, limit: int) -> Sequence[BlobRecord]:
        """Return records whose check has come due, the longest overdue first."""
        ...

    async def postpone(self, check_times: Mapping[str, datetime]) -> None:
        """Move checks, by blob id; what is gone stays gone."""
        ...

    async def remove(self, blob_ids: Sequence[str]) -> None:
        """Remove records; what is gone already does not matter."""
        ...


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A finished upload."""

    blob_id: str
    size_bytes: int


class StoreAnswer:
    """Serves UploadResponse."""

    def __init__(
        self, executions: ExecutionStore, blobs: BlobStore, records: BlobRecords, answers: AnswerQuota, clock: Clock
    ) -> None:
        self._executions = executions
        self._blobs = blobs
        self._records = records
        self._answers = answers
        self._clock = clock
        self._places = asyncio.Semaphore(MAX_UPLOADS)

    async def __call__(self, execution_id: str, fencing_token: int, chunks: AsyncIterator[bytes]) -> StoredBlob:
        """Store the answer of a leased attempt.

        Raises:
            FailedPreconditionError: the lease is not the execution's any more.
            ResourceExhaustedError: the org keeps as much as it may.
            InvalidArgumentError: there are more bytes than any job may keep.
            UnavailableError: the store does not take it now.
        """
        await self._check_lease(execution_id, fencing_token)
        blob_id = f"{execution_id}/{fencing_token}/{new_id()}"
        async with self._places:
            check_time = self._clock.now() + CHECK_INTERVAL
            await self._records.insert(BlobRecord(blob_id, execution_id, fencing_token, check_time))
            # If we die here or among the bytes, the executor uploads anew under another name, and the sweep removes
            # what this one left.
            crash_point("scheduler.blob_recorded")
            counted = _Bounded(chunks)
            await self._blobs.write(blob_id, counted.bytes())
        # If we die here, the blob is whole and nobody knows its name: the same.
        crash_point("scheduler.blob_stored")
        return StoredBlob(blob_id, counted.size)

    async def _check_lease(self, execution_id: str, fencing_token: int) -> None:
        """Raise if the report that is to follow could not count. One that loses its lease later is refused itself."""
        execution = (await self._executions.load([execution_id])).get(execution_id)
        held = execution is not None and execution.state is ExecutionState.RUNNING
        if execution is None or not held or execution.fencing_token != fencing_token:
            raise FailedPreconditionError(
                "LEASE_LOST",
                f"the lease {fencing_token} of execution {execution_id} is not held any more",
                metadata={"executionId": execution_id, "fencingToken": str(fencing_token)},
            )
        if self._answers.is_full(execution.org_id):
            raise ResourceExhaustedError(
                "STORED_BYTES_QUOTA_EXCEEDED",
                "the org has used up its quota of stored bytes",
                metadata={"subject": f"org:{execution.org_id}"},
            )


class _Bounded:
    """Counts bytes on their way, and stops them at the bound."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self.size = 0

    async def bytes(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self.size += len(chunk)
            if self.size > MAX_BLOB_BYTES:
                raise InvalidArgumentError.of("chunk", "ANSWER_TOO_LARGE", f"more than {MAX_BLOB_BYTES} bytes came")
            if chunk:
                yield chunk


@dataclass(frozen=True, slots=True)
class SweepBlobs:
    """Removes blobs that nothing needs; runs now and then on every replica, and repeating it changes nothing."""

    executions: ExecutionStore
    blobs: BlobStore
    records: BlobRecords
    clock: Clock
    batch: int = 500

    async def run_once(self) -> int:
        """Look at one batch of blobs; returns how many that were."""
        now = self.clock.now()
        records = await self.records.find_due(now, self.batch)
        if not records:
            return 0
        executions = await self.executions.load_with_answers({record.execution_id for record in records})
        checks = {record.blob_id: next_check(record, executions.get(record.execution_id), now) for record in records}
        useless = [blob_id for blob_id, check_time in checks.items() if check_time is None]
        places = asyncio.Semaphore(MAX_DELETIONS)
        removed = await asyncio.gather(*(self._delete(blob_id, places) for blob_id in useless))
        # If we die here, bytes are gone whose records stand: the next sweep removes nothing, and then the records.
        crash_point("scheduler.blobs_deleted")
        gone = [blob_id for blob_id, done in zip(useless, removed, strict=True) if done]
        if gone:
            await self.records.remove(gone)
        # What the store would not remove waits like the rest, so that it does not stand in the way of others.
        kept = {blob_id: check_time or now + CHECK_INTERVAL for blob_id, check_time in checks.items()}
        for blob_id in gone:
            del kept[blob_id]
        if kept:
            await self.records.postpone(kept)
        return len(records)

    async def _delete(self, blob_id: str, places: asyncio.Semaphore) -> bool:
        async with places:
            try:
                await self.blobs.delete(blob_id)
            except PunctualError as error:
                log.warning("blob.not_deleted", blob_id=blob_id, reason=error.reason)
                return False
        return True
