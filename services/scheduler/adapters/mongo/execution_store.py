"""The executions in MongoDB: what callers read, and how records come to be. Leases are in `lease_writes`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError

from libs.common.errors import NotFoundError
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.cancel_writes import CancelWrites
from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.confirmed_reads import confirm_reads
from services.scheduler.adapters.mongo.documents import ExecutionDocument
from services.scheduler.adapters.mongo.due_filters import ended_waits
from services.scheduler.adapters.mongo.duplicate_keys import only_duplicates
from services.scheduler.adapters.mongo.known_executions import MARK_FIELDS
from services.scheduler.adapters.mongo.lease_writes import LeaseWrites
from services.scheduler.adapters.mongo.readable_documents import (
    DOCUMENTS_TOGETHER,
    SMALL_DOCUMENTS_TOGETHER,
    ReadableDocuments,
)
from services.scheduler.adapters.mongo.waiting_writes import WaitingWrites
from services.scheduler.domain.execution import Cause, Execution, ExecutionState, Phase
from services.scheduler.usecases.acquire_due import POLL_GRACE
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.execution_store import ExecutionFilter

MAX_BEGUN = 1000
"""Executions that one request can have been granted."""

CONCURRENT_READS = 16
"""Queries of one call that are under way at a time."""

_WITHOUT_ANSWER = {"response": 0}
_WITHOUT_ANSWER_BYTES = {"response.body": 0, "response.head": 0}
_LIVE = [ExecutionState.READY, ExecutionState.RUNNING]
_RAN = sorted(
    {state for state in ExecutionState if state.is_final} - {ExecutionState.SKIPPED, ExecutionState.CANCELLED}
)


class MongoExecutionStore(LeaseWrites, CancelWrites, WaitingWrites):
    """Implements `ExecutionStore`."""

    def __init__(self, retention: timedelta, outbox: AuditOutbox) -> None:
        super().__init__(Codec(), retention)
        self._outbox = outbox
        self._readable = ReadableDocuments("executions", self._passed_over)

    @property
    def _executions(self) -> AsyncCollection[dict[str, Any]]:
        return ExecutionDocument.get_pymongo_collection()

    async def insert_new(self, executions: Sequence[Execution], *, audit: AuditEvent | None = None) -> None:
        """Store executions durably; one whose id exists stays as it is."""
        event = self._outbox.fields(audit)
        try:
            await self._executions.insert_many([{**self._codec.encode(e), **event} for e in executions], ordered=False)
        except BulkWriteError as error:
            if not only_duplicates(error):
                raise
        else:
            self._outbox.written(audit)
            self._known.remember(executions)

    async def get(self, scope: OrgScope, execution_id: str) -> Execution:
        """Return an execution."""
        document = await ExecutionDocument.find_one({"_id": execution_id, **_within(scope)})
        if document is None:
            raise NotFoundError("execution", execution_id)
        return self._decode(document.model_dump(by_alias=True, exclude_unset=True))

    async def find_page(
        self, scope: OrgScope, where: ExecutionFilter, *, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Return executions, latest fire first, that come after (fire time, id), without their answers' bytes."""
        cursor = self._executions.find(
            _list_filter(scope, where, after),
            _WITHOUT_ANSWER_BYTES,
            sort=[("fire_time", -1), ("_id", -1)],
            limit=limit,
        )
        return [self._decode(document) async for document in cursor]

    async def find_window(
        self, job_id: str, start: datetime, end: datetime, *, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Return a job's executions with fire times in [start, end], earliest first, without their answers' bytes."""
        query: Document = {"job_id": job_id, "fire_time": {"$gte": start, "$lte": end}}
        if after:
            fire_time, execution_id = after
            query["fire_time"]["$gte"] = fire_time
            query["$or"] = [{"fire_time": {"$gt": fire_time}}, {"_id": {"$gt": execution_id}}]
        cursor = self._executions.find(
            query, _WITHOUT_ANSWER_BYTES, sort=[("fire_time", 1), ("_id", 1)], limit=limit, hint="job_fire"
        )
        return [self._decode(document) async for document in cursor]

    async def load(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return the executions that exist, by id, of any org, without answers."""
        found: dict[str, Execution] = {}
        if known := self._known.among(execution_ids):
            cursor = self._executions.find({"_id": {"$in": known}}, MARK_FIELDS, batch_size=SMALL_DOCUMENTS_TOGETHER)
            recalled = [self._known.recall(document) async for document in cursor]
            found = {execution.execution_id: execution for execution in recalled if execution is not None}
        if len(found) < len(execution_ids):
            query = {"_id": {"$in": [execution_id for execution_id in execution_ids if execution_id not in found]}}
            cursor = self._executions.find(query, _WITHOUT_ANSWER, batch_size=DOCUMENTS_TOGETHER)
            read = await self._readable.decode(cursor, self._decode)
            found |= {execution.execution_id: execution for execution in read}
        return found

    def recall(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return those of the executions that are remembered, as they were inserted or granted."""
        return self._known.get(execution_ids)

    async def confirm(self) -> None:
        """Return when all that was read before is durable."""
        await confirm_reads(self._executions)

    async def load_with_answers(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return the executions that exist, by id, of any org, with their answers but not the answers' bytes."""
        cursor = self._executions.find({"_id": {"$in": list(execution_ids)}}, _WITHOUT_ANSWER_BYTES)
        return {document["_id"]: self._decode(document) async for document in cursor}

    async def take_waiting(
        self, partitions: Collection[int], until: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Hand over executions whose wait ends by `until`."""
        found = await self._find_awake(ended_waits(until, partitions), limit, without_orgs)
        if found:
            # Two dispatchers may both get one here: a doubled stream entry, of which one is refused.
            grace = POLL_GRACE // timedelta(milliseconds=1)
            await self._executions.update_many(
                {"_id": {"$in": [e.execution_id for e in found]}, "phase": Phase.WAITING, "wake_time": {"$lte": until}},
                [
                    {
                        "$set": {
                            "phase": Phase.DISPATCHED,
                            "wake_time": {"$add": [{"$max": ["$wake_time", "$$NOW"]}, grace]},
                        }
                    }
                ],
            )
        return found

    async def find_begun(self, request_id: str, now: datetime) -> Sequence[Execution]:
        """Return the executions that a request was granted, while their leases hold at `now`."""
        query = {"phase": Phase.LEASED, "wake_time": {"$gt": now}, "begin_request_id": request_id}
        # A walk over the keys of what is leased at this moment; an index for it would cost two writes an attempt.
        return await self._find_awake(query, MAX_BEGUN)

    async def find_overdue(
        self, now: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Return executions that no delivery reached in time, and those whose lease ran out, oldest first."""
        awake = [Phase.DISPATCHED, Phase.LEASED, Phase.WAITING]
        return await self._find_awake({"phase": {"$in": awake}, "wake_time": {"$lte": now}}, limit, without_orgs)

    async def find_ready(
        self, until: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Return all executions that may begin by `until`, delivered or not, oldest first."""
        # A delivered execution wakes the grace after its time at the latest, which bounds the index range.
        return await self._find_awake(
            {
                "phase": {"$in": [Phase.DISPATCHED, Phase.WAITING]},
                "wake_time": {"$lte": until + POLL_GRACE},
                "available_time": {"$lte": until},
            },
            limit,
            without_orgs,
        )

    async def postpone(self, executions: Sequence[Execution], wake_time: datetime) -> None:
        """Let nobody look at executions before an instant."""
        await self._executions.bulk_write(
            [
                UpdateOne(
                    {"_id": e.execution_id, "state": e.state, "fencing_token": e.fencing_token, "phase": e.phase},
                    {"$max": {"wake_time": wake_time}},
                )
                for e in executions
            ],
            ordered=False,
        )

    async def settled(self, execution_ids: Collection[str]) -> None:
        """Note that what the end of these executions means for their jobs is done."""
        await self._executions.update_many(
            {"_id": {"$in": list(execution_ids)}, "phase": Phase.SETTLING}, {"$unset": {"phase": "", "wake_time": ""}}
        )

    async def find_unsettled(self, now: datetime, limit: int) -> Sequence[Execution]:
        """Return final executions whose consequences may not be done."""
        return await self._find_awake({"phase": Phase.SETTLING, "wake_time": {"$lte": now}}, limit)

    async def find_live_jobs(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the jobs have an execution that is not final."""
        query = {"job_id": {"$in": list(job_ids)}, "phase": {"$exists": True}, "state": {"$in": _LIVE}}
        cursor = self._executions.find(query, {"job_id": 1}, hint="live")
        return frozenset([document["job_id"] async for document in cursor])

    async def withdraw(self, job_id: str, reason: str, now: datetime) -> None:
        """Take back the READY, never begun, scheduled executions of a job that stops firing."""
        result = await self._executions.update_many(
            {
                "job_id": job_id,
                "phase": {"$exists": True},
                "state": ExecutionState.READY,
                "attempt_number": 0,
                "cause": Cause.SCHEDULE,
                "fire_time": {"$lte": now},
            },
            {
                "$set": {
                    "state": ExecutionState.SKIPPED,
                    "state_reason": reason,
                    "end_time": now,
                    "expire_time": now + self._retention,
                },
                # One that was begun and handed back unsent holds the overlap slot: kept, it would block the job.
                "$unset": dict.fromkeys(
                    ("phase", "wake_time", "available_time", "wait_reason", "queue_slot", "overlap_slot"), ""
                ),
            },
            hint="live",
        )
        self._swept(ExecutionState.SKIPPED, reason, result.modified_count)

    async def last_success_times(self, job_ids: Collection[str]) -> Mapping[str, datetime]:
        """Return the fire time of each job's latest SUCCEEDED execution."""
        # One seek a job: a query over many would read all of their history.
        wanted = list(job_ids)
        found: dict[str, datetime] = {}
        for start in range(0, len(wanted), CONCURRENT_READS):
            batch = wanted[start : start + CONCURRENT_READS]
            latest = await asyncio.gather(*(self._latest_success(job_id) for job_id in batch))
            found |= {job_id: time for job_id, time in zip(batch, latest, strict=True) if time is not None}
        return found

    async def _latest_success(self, job_id: str) -> datetime | None:
        document = await self._executions.find_one(
            {"job_id": job_id, "state": ExecutionState.SUCCEEDED}, {"fire_time": 1}, sort=[("fire_time", -1)]
        )
        return document["fire_time"] if document else None

    async def latest_states(self, job_id: str, limit: int) -> Sequence[ExecutionState]:
        """Return the states of the job's latest final executions that ran, latest first."""
        cursor = self._executions.find(
            {"job_id": job_id, "state": {"$in": _RAN}}, {"state": 1}, sort=[("fire_time", -1)], limit=limit
        )
        return [ExecutionState(document["state"]) async for document in cursor]

    async def _find_awake(self, query: Document, limit: int, without_orgs: Collection[str] = ()) -> list[Execution]:
        if without_orgs:
            query = {**query, "org_id": {"$nin": list(without_orgs)}}
        cursor = self._executions.find(
            query,
            _WITHOUT_ANSWER,
            sort=[("wake_time", 1)],
            limit=limit,
            hint="wake",
            batch_size=DOCUMENTS_TOGETHER,
        )
        return await self._readable.decode(cursor, self._decode)

    def _passed_over(self, collection: str) -> None:
        """Hear of a document that could not be read; for those who count them."""

    def _decode(self, document: Mapping[str, Any]) -> Execution:
        return self._codec.decode(document, Execution)


def _within(scope: OrgScope) -> Document:
    """Return the part of a filter that keeps a query inside the caller's scope."""
    if scope.project_ids is None:
        return {"org_id": scope.org_id}
    return {"org_id": scope.org_id, "project_id": {"$in": sorted(scope.project_ids)}}


def _list_filter(scope: OrgScope, where: ExecutionFilter, after: tuple[datetime, str] | None) -> Document:
    clauses: list[Document] = [_within(scope)]
    if where.job_id:
        callbacks = where.causes == {Cause.CALLBACK}
        clauses.append({"callback.job_id" if callbacks else "job_id": where.job_id})
    if where.project_id:
        clauses.append({"project_id": where.project_id})
    if where.states:
        clauses.append({"state": {"$in": sorted(where.states)}})
    if where.causes:
        clauses.append({"cause": {"$in": sorted(where.causes)}})
    if where.trace_id:
        clauses.append({"trace_id": where.trace_id})
    if where.fire_after:
        clauses.append({"fire_time": {"$gte": where.fire_after}})
    if where.fire_before:
        clauses.append({"fire_time": {"$lt": where.fire_before}})
    if after:
        fire_time, execution_id = after
        # The plain bound lets the index do the seek; the alternative sorts out the ties.
        clauses.append({"fire_time": {"$lte": fire_time}})
        clauses.append({"$or": [{"fire_time": {"$lt": fire_time}}, {"_id": {"$lt": execution_id}}]})
    return {"$and": clauses}
