"""The jobs in MongoDB. Callers' reads and writes go through Beanie; the tick uses the collection's bulk API."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo import ReturnDocument, UpdateMany, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from libs.common.errors import AlreadyExistsError, NotFoundError
from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.documents import JobDocument
from services.scheduler.domain.begin import takes_overlap_slot
from services.scheduler.domain.job import PARTITION_COUNT, CatchUpPolicy, Job, JobDefinition, JobState, OverlapPolicy
from services.scheduler.domain.planning import FireCursor
from services.scheduler.domain.schedule import Schedule
from services.scheduler.domain.target_url import split_target_url
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports import CursorMove, DueJob, JobFilter

KEPT_FAILURE_IDS = 50
"""Failed executions a job remembers, so that counting one twice counts it once."""

_DUE_FIELDS = {
    "org_id": 1,
    "project_id": 1,
    "partition": 1,
    "revision": 1,
    "schedule_revision": 1,
    "next_fire_time": 1,
    "trace_parent": 1,
    "definition.schedule": 1,
    "definition.catch_up": 1,
    "definition.overlap": 1,
}
# A null sorts before every date, so a bound from below keeps jobs without a further fire out of the range.
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


class MongoJobStore:
    """Implements `JobStore`."""

    def __init__(self) -> None:
        self._codec = Codec()

    @property
    def _jobs(self) -> AsyncCollection[dict[str, Any]]:
        return JobDocument.get_pymongo_collection()

    async def insert(self, job: Job) -> None:
        """Store a new job durably."""
        try:
            await JobDocument.model_validate(self._encode(job)).insert()
        except DuplicateKeyError as error:
            raise AlreadyExistsError(
                "IDEMPOTENCY_KEY_REUSED",
                f"idempotency key {job.idempotency_key!r} belongs to another job",
                resource_type="job",
                resource_id=job.job_id,
            ) from error

    async def get(self, scope: OrgScope, job_id: str) -> Job:
        """Return a job, also a deleted one."""
        document = await JobDocument.find_one({"_id": job_id, **_within(scope)})
        if document is None:
            raise NotFoundError("job", job_id)
        return self._decode(document.model_dump(by_alias=True))

    async def find_by_idempotency_key(self, scope: OrgScope, key: str) -> Job | None:
        """Return the org's job that was created under a key."""
        document = await JobDocument.find_one({"idempotency_key": key, **_within(scope)})
        return self._decode(document.model_dump(by_alias=True)) if document else None

    async def find_page(self, scope: OrgScope, where: JobFilter, *, after: str, limit: int) -> Sequence[Job]:
        """Return jobs, newest first, that come after the job id `after`."""
        query = JobDocument.find(_list_filter(scope, where, after)).sort("-_id").limit(limit)
        return [self._decode(document.model_dump(by_alias=True)) async for document in query]

    async def replace(self, scope: OrgScope, job: Job, *, expected: Job) -> bool:
        """Store a changed job, unless somebody changed it or moved its cursor since it was read."""
        changed = self._encode(job)
        for immutable in ("_id", "org_id", "create_time", "counted_failures"):
            changed.pop(immutable, None)
        if job.consecutive_failures == expected.consecutive_failures:
            # The dispatch path counts meanwhile; only a reset by a caller may overwrite it.
            del changed["consecutive_failures"]
        result = await self._jobs.update_one(
            {
                "_id": job.job_id,
                **_within(scope),
                "revision": expected.revision,
                "state": expected.state,
                "next_fire_time": expected.next_fire_time,
            },
            {"$set": changed},
        )
        return result.matched_count == 1

    async def load(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """Return the jobs that exist, by id, of any org."""
        cursor = self._jobs.find({"_id": {"$in": list(job_ids)}}, batch_size=len(job_ids) + 1)
        return {document["_id"]: self._decode(document) async for document in cursor}

    async def find_due(self, partitions: Collection[int], until: datetime, limit: int) -> Sequence[DueJob]:
        """Return ACTIVE jobs whose next due time is at most `until`, oldest first."""
        query: Document = {"state": JobState.ACTIVE, "next_due_time": {"$gt": _BEGINNING, "$lte": until}}
        if len(partitions) < PARTITION_COUNT:
            query["partition"] = {"$in": list(partitions)}
        cursor = self._jobs.find(query, _DUE_FIELDS, sort=[("next_due_time", 1)], limit=limit, hint="tick")
        return [self._due_job(document) async for document in cursor]

    async def advance(self, moves: Sequence[CursorMove]) -> None:
        """Move cursors; jobs that share the whole move, such as one-time jobs of one instant, share one update."""
        groups: dict[tuple[object, ...], list[CursorMove]] = defaultdict(list)
        for move in moves:
            groups[move.schedule_revision, move.expected, move.next_fire_time, move.next_due_time].append(move)
        writes: list[UpdateOne | UpdateMany] = []
        for group in groups.values():
            kind = UpdateOne if len(group) == 1 else UpdateMany
            ids = [move.job_id for move in group]
            writes.append(
                kind(
                    {
                        "_id": ids[0] if len(ids) == 1 else {"$in": ids},
                        "state": JobState.ACTIVE,
                        "schedule_revision": group[0].schedule_revision,
                        "next_fire_time": group[0].expected,
                    },
                    {"$set": {"next_fire_time": group[0].next_fire_time, "next_due_time": group[0].next_due_time}},
                )
            )
        await self._jobs.bulk_write(writes, ordered=False)

    async def complete(self, job_ids: Collection[str], now: datetime) -> None:
        """Make those jobs COMPLETED that are ACTIVE and have no further fire."""
        await self._jobs.update_many(
            {"_id": {"$in": list(job_ids)}, "state": JobState.ACTIVE, "next_fire_time": None},
            {"$set": {"state": JobState.COMPLETED, "state_time": now}},
        )

    async def reset_failures(self, job_ids: Collection[str]) -> None:
        """Set the failed executions in a row to none."""
        await self._jobs.update_many({"_id": {"$in": list(job_ids)}}, {"$set": {"consecutive_failures": 0}})

    async def count_failure(self, job_id: str, execution_id: str) -> int:
        """Count a failed execution once, however often it is said."""
        counted = await self._jobs.find_one_and_update(
            {"_id": job_id, "counted_failures": {"$ne": execution_id}},
            {
                "$inc": {"consecutive_failures": 1},
                "$push": {"counted_failures": {"$each": [execution_id], "$slice": -KEPT_FAILURE_IDS}},
            },
            projection={"consecutive_failures": 1},
            return_document=ReturnDocument.AFTER,
        )
        counted = counted or await self._jobs.find_one({"_id": job_id}, {"consecutive_failures": 1})
        return int(counted["consecutive_failures"]) if counted else 0

    async def stop(self, job_id: str, state: JobState, reason: str, note: str, now: datetime) -> bool:
        """Take an ACTIVE job to PAUSED or FAILED on the scheduler's own decision."""
        result = await self._jobs.update_one(
            {"_id": job_id, "state": JobState.ACTIVE},
            {
                "$set": {"state": state, "state_reason": reason, "state_note": note, "state_time": now},
                "$inc": {"revision": 1},
            },
        )
        return result.modified_count == 1

    async def find_orphaned(self, before: datetime, limit: int) -> Sequence[str]:
        """Return ACTIVE jobs without a further fire that were last changed before an instant."""
        query = {"state": JobState.ACTIVE, "next_due_time": None, "update_time": {"$lt": before}}
        cursor = self._jobs.find(query, {"_id": 1}, limit=limit, hint="tick")
        return [document["_id"] async for document in cursor]

    def _encode(self, job: Job) -> Document:
        """Return the stored form: the record's fields, the definition as one value, and copies for queries."""
        return {
            "_id": job.job_id,
            "org_id": job.org_id,
            "project_id": job.definition.project_id,
            "name": job.definition.name,
            "labels": [f"{key}={value}" for key, value in job.definition.labels.items()],
            "target_host": split_target_url(job.definition.target.url).host,
            "partition": job.partition,
            "definition": self._codec.encode(job.definition),
            "state": job.state.value,
            "state_reason": job.state_reason,
            "state_note": job.state_note,
            "next_fire_time": job.next_fire_time,
            "next_due_time": job.next_due_time,
            "revision": job.revision,
            "schedule_revision": job.schedule_revision,
            "schedule_time": job.schedule_time,
            "create_time": job.create_time,
            "update_time": job.update_time,
            "delete_time": job.delete_time,
            # The index on it is sparse: only deleted jobs are in it.
            **({"purge_time": job.purge_time} if job.purge_time else {}),
            "creator": job.creator,
            "consecutive_failures": job.consecutive_failures,
            "fingerprint": job.fingerprint,
            "idempotency_key": job.idempotency_key,
            "tzdata_version": job.tzdata_version,
            "trace_parent": job.trace_parent,
        }

    def _decode(self, document: Mapping[str, Any]) -> Job:
        return Job(
            job_id=document["_id"],
            org_id=document["org_id"],
            definition=self._codec.decode(document["definition"], JobDefinition),
            create_time=document["create_time"],
            update_time=document["update_time"],
            creator=document["creator"],
            state=JobState(document["state"]),
            state_reason=document["state_reason"],
            state_note=document["state_note"],
            next_fire_time=document["next_fire_time"],
            next_due_time=document["next_due_time"],
            revision=document["revision"],
            schedule_revision=document["schedule_revision"],
            schedule_time=document["schedule_time"],
            delete_time=document["delete_time"],
            purge_time=document.get("purge_time"),
            consecutive_failures=document["consecutive_failures"],
            fingerprint=document["fingerprint"],
            idempotency_key=document["idempotency_key"],
            tzdata_version=document["tzdata_version"],
            trace_parent=document["trace_parent"],
        )

    def _due_job(self, document: Mapping[str, Any]) -> DueJob:
        definition = document["definition"]
        schedule = self._codec.decode(definition["schedule"], Schedule)
        return DueJob(
            cursor=FireCursor(
                job_id=document["_id"],
                schedule=schedule,
                catch_up=self._codec.decode(definition["catch_up"], CatchUpPolicy),
                next_fire_time=document["next_fire_time"],
            ),
            org_id=document["org_id"],
            project_id=document["project_id"],
            partition=document["partition"],
            revision=document["revision"],
            schedule_revision=document["schedule_revision"],
            exclusive=takes_overlap_slot(schedule, OverlapPolicy(definition["overlap"])),
            trace_parent=document["trace_parent"],
        )


def _within(scope: OrgScope) -> Document:
    """Return the part of a filter that keeps a query inside the caller's scope."""
    if scope.project_ids is None:
        return {"org_id": scope.org_id}
    return {"org_id": scope.org_id, "project_id": {"$in": sorted(scope.project_ids)}}


def _list_filter(scope: OrgScope, where: JobFilter, after: str) -> Document:
    clauses: list[Document] = [_within(scope)]
    if where.project_id:
        clauses.append({"project_id": where.project_id})
    clauses.append({"state": {"$in": sorted(where.states)} if where.states else {"$ne": JobState.DELETED}})
    clauses.extend({"labels": f"{key}={value}"} for key, value in (where.labels or {}).items())
    if where.name_prefix:
        clauses.append({"name": {"$regex": f"^{re.escape(where.name_prefix)}"}})
    if where.target_host:
        clauses.append({"target_host": where.target_host})
    if where.next_fire_after:
        clauses.append({"next_fire_time": {"$gte": where.next_fire_after}})
    if where.next_fire_before:
        clauses.append({"next_fire_time": {"$lt": where.next_fire_before}})
    if after:
        clauses.append({"_id": {"$lt": after}})
    return {"$and": clauses}
