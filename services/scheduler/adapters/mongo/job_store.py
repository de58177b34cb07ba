"""The jobs in MongoDB. Beanie declares the collection; what is read and written goes through its bulk API.

Single jobs that callers create or read at one time share a round trip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import UpdateMany, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError

from libs.common.errors import NotFoundError
from libs.common.instants import truncate_to_millis
from services.scheduler.adapters.audit_trail import mark_event_stored
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.codec import Document
from services.scheduler.adapters.mongo.confirmed_reads import confirm_reads
from services.scheduler.adapters.mongo.documents import JobDocument
from services.scheduler.adapters.mongo.due_filters import due_jobs
from services.scheduler.adapters.mongo.duplicate_keys import only_duplicates
from services.scheduler.adapters.mongo.header_secrets import HeaderSecrets
from services.scheduler.adapters.mongo.job_filters import list_filter, within
from services.scheduler.adapters.mongo.job_form import DUE_FIELDS, JOB_FIELDS, JobForm
from services.scheduler.adapters.mongo.known_jobs import MOVING_FIELDS, KnownJobs
from services.scheduler.adapters.mongo.readable_documents import (
    DOCUMENTS_TOGETHER,
    SMALL_DOCUMENTS_TOGETHER,
    ReadableDocuments,
)
from services.scheduler.adapters.mongo.shared_round_trips import SharedRoundTrips
from services.scheduler.adapters.mongo.values_by_id import replace_with_own
from services.scheduler.domain.job import (
    Job,
    JobState,
    StateChange,
)
from services.scheduler.usecases.audit import SCHEDULER_ACTOR, AuditEvent
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.job_store import CursorMove, DueJob, JobFilter

MAX_READ_TOGETHER = 100
"""Jobs that share one query; the largest fit into one answer of the database."""

KEPT_FAILURE_IDS = 50
"""Failed executions a job remembers, so that counting one twice counts it once."""

MANY_ALIKE = 20
"""Moves that are worth an update of their own."""


class MongoJobStore:
    """Implements `JobStore`."""

    def __init__(self, secrets: HeaderSecrets, outbox: AuditOutbox) -> None:
        self._form = JobForm(secrets)
        self._outbox = outbox
        self._inserts = SharedRoundTrips(self._insert_together)
        self._reads = SharedRoundTrips(self._read_together, most=MAX_READ_TOGETHER)
        self._readable = ReadableDocuments("jobs", self._passed_over)
        self._known = KnownJobs()

    @property
    def _jobs(self) -> AsyncCollection[dict[str, Any]]:
        return JobDocument.get_pymongo_collection()

    async def insert_new(self, jobs: Sequence[Job], *, audits: Sequence[AuditEvent] = ()) -> frozenset[str]:
        """Store new jobs durably; returns the ids of those that met a taken idempotency key or fingerprint."""
        if len(jobs) > 1:
            return await self._insert(jobs, audits)
        stored = await self._inserts.ask(None, (jobs[0], audits))
        if audits and stored:
            # The shared write could not know whose event it was.
            mark_event_stored()
        return frozenset() if stored else frozenset({jobs[0].job_id})

    async def _insert_together(self, _key: None, inserts: Sequence[tuple[Job, Sequence[AuditEvent]]]) -> Sequence[bool]:
        refused = await self._insert([job for job, _ in inserts], [event for _, audits in inserts for event in audits])
        return [job.job_id not in refused for job, _ in inserts]

    async def _insert(self, jobs: Sequence[Job], audits: Sequence[AuditEvent]) -> frozenset[str]:
        events = {event.object_id: event for event in audits}
        refused: frozenset[str] = frozenset()
        try:
            # Not through Beanie: validating a thousand documents again would take longer than all else together.
            await self._jobs.insert_many(
                [{**self._form.encode(job), **self._outbox.fields(events.get(job.job_id))} for job in jobs],
                ordered=False,
            )
        except BulkWriteError as error:
            # With a majority to confirm, the server answers a duplicate only when the first one is durable, too.
            if not only_duplicates(error):
                raise
            refused = frozenset(jobs[failure["index"]].job_id for failure in error.details["writeErrors"])
        for job_id, event in events.items():
            if job_id not in refused:
                self._outbox.written(event)
        for job in jobs:
            if job.job_id not in refused and _is_as_stored(job):
                self._known.remember(job, None)
        return refused

    async def get(self, scope: OrgScope, job_id: str) -> Job:
        """Return a job, also a deleted one."""
        document = await self._reads.ask(scope, job_id)
        if document is None:
            raise NotFoundError("job", job_id)
        return self._form.decode(document)

    async def _read_together(self, scope: OrgScope, job_ids: Sequence[str]) -> Sequence[Document | None]:
        cursor = self._jobs.find({"_id": {"$in": list(job_ids)}, **within(scope)}, batch_size=len(job_ids) + 1)
        found = {document["_id"]: document async for document in cursor}
        return [found.get(job_id) for job_id in job_ids]

    async def find_by_idempotency_keys(self, org_id: str, keys: Collection[str]) -> Mapping[str, Job]:
        """Return an org's jobs that were created under keys, by key."""
        cursor = self._jobs.find({"org_id": org_id, "idempotency_key": {"$in": list(keys)}})
        return {document["idempotency_key"]: self._form.decode(document) async for document in cursor}

    async def find_by_fingerprints(self, fingerprints: Collection[str]) -> Mapping[str, Job]:
        """Return the jobs that hold fingerprints, by fingerprint."""
        cursor = self._jobs.find({"fingerprint_slot": {"$in": list(fingerprints)}})
        return {document["fingerprint_slot"]: self._form.decode(document) async for document in cursor}

    async def release_fingerprints(self, job_ids: Collection[str]) -> None:
        """Let equal submissions pass from now on."""
        await self._jobs.update_many(
            {"_id": {"$in": list(job_ids)}}, {"$unset": {"fingerprint_slot": "", "duplicate_until": ""}}
        )

    async def find_page(self, scope: OrgScope, where: JobFilter, *, after: str, limit: int) -> Sequence[Job]:
        """Return jobs, newest first, that come after the job id `after`."""
        cursor = self._jobs.find(list_filter(scope, where, after), sort=[("_id", -1)], limit=limit)
        return [self._form.decode(document) async for document in cursor]

    async def replace(self, scope: OrgScope, job: Job, *, expected: Job, audit: AuditEvent | None = None) -> bool:
        """Store a changed job, unless somebody changed it or moved its cursor since it was read."""
        changed = self._form.encode(job)
        # The fingerprint was taken at creation and is only given back: another job may hold it by now.
        for immutable in ("_id", "org_id", "create_time", "counted_failures", "fingerprint_slot", "duplicate_until"):
            changed.pop(immutable, None)
        if job.consecutive_failures == expected.consecutive_failures:
            # The dispatch path counts meanwhile; only a reset by a caller may overwrite it.
            del changed["consecutive_failures"]
        cleared = {"secret_key_ids": ""} if "secret_key_ids" not in changed else {}
        if job.duplicate_until is None:
            cleared |= {"fingerprint_slot": "", "duplicate_until": ""}
        result = await self._jobs.update_one(
            {
                "_id": job.job_id,
                **within(scope),
                "revision": expected.revision,
                "state": expected.state,
                "next_fire_time": expected.next_fire_time,
            },
            {"$set": changed, **({"$unset": cleared} if cleared else {}), **self._outbox.push(audit)},
        )
        if result.matched_count == 1:
            self._outbox.written(audit)
        return result.matched_count == 1

    async def load(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """Return the jobs that exist, by id, of any org."""
        jobs: dict[str, Job] = {}
        if known := self._known.among(job_ids):
            cursor = self._jobs.find({"_id": {"$in": known}}, MOVING_FIELDS, batch_size=SMALL_DOCUMENTS_TOGETHER)
            recalled = [self._known.recall(document) async for document in cursor]
            jobs = {job.job_id: job for job in recalled if job is not None}
        if len(jobs) < len(job_ids):
            unknown = [job_id for job_id in job_ids if job_id not in jobs]
            cursor = self._jobs.find({"_id": {"$in": unknown}}, JOB_FIELDS, batch_size=DOCUMENTS_TOGETHER)
            jobs |= {job.job_id: job for job in await self._readable.decode(cursor, self._learn)}
        return jobs

    def recall(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """Return those of the jobs that are remembered, as they were stored or loaded last."""
        return self._known.get(job_ids)

    def _learn(self, document: Mapping[str, Any]) -> Job:
        job = self._form.decode(document)
        self._known.remember(job, document.get("secret_key_ids"))
        return job

    async def confirm(self) -> None:
        """Return when all that was read before is durable."""
        await confirm_reads(self._jobs)

    async def find_existing(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the jobs exist, whether this version can read them or not."""
        cursor = self._jobs.find({"_id": {"$in": list(job_ids)}}, {"_id": 1})
        return frozenset([document["_id"] async for document in cursor])

    async def find_due(
        self,
        partitions: Collection[int],
        until: datetime,
        limit: int,
        *,
        since: datetime | None = None,
        without_orgs: Collection[str] = (),
    ) -> Sequence[DueJob]:
        """Return ACTIVE jobs whose next due time is at most `until`, oldest first."""
        query = due_jobs(until, since=since, partitions=partitions)
        if without_orgs:
            query["org_id"] = {"$nin": list(without_orgs)}
        cursor = self._jobs.find(
            query,
            DUE_FIELDS,
            sort=[("next_due_time", 1)],
            limit=limit,
            hint="tick",
            batch_size=DOCUMENTS_TOGETHER,
        )
        return await self._readable.decode(cursor, self._form.due_job)

    async def advance(self, moves: Sequence[CursorMove]) -> None:
        """Move cursors; many jobs that share the whole move, such as those of one instant, share a plain update."""
        groups: dict[tuple[object, ...], list[CursorMove]] = defaultdict(list)
        for move in moves:
            groups[move.schedule_revision, move.expected, move.next_fire_time, move.next_due_time].append(move)
        writes = [_shared_move(group) for group in groups.values() if len(group) >= MANY_ALIKE]
        single = [move for group in groups.values() if len(group) < MANY_ALIKE for move in group]
        if single:
            writes.append(_single_moves(single))
        await self._jobs.bulk_write(writes, ordered=False)

    async def complete(self, job_ids: Collection[str], now: datetime) -> None:
        """Make those jobs COMPLETED that are ACTIVE and have no further fire."""
        await self._jobs.update_many(
            {"_id": {"$in": list(job_ids)}, "state": JobState.ACTIVE, "next_fire_time": None},
            {
                "$set": {"state": JobState.COMPLETED, "state_time": now},
                "$push": self._form.state_change(StateChange(now, JobState.COMPLETED, SCHEDULER_ACTOR)),
            },
        )

    async def reset_failures(self, job_ids: Collection[str]) -> None:
        """Set the failed executions in a row to none."""
        await self._jobs.update_many({"_id": {"$in": list(job_ids)}}, {"$set": {"consecutive_failures": 0}})

    async def count_failures(self, failures: Mapping[str, Collection[str]]) -> Mapping[str, int]:
        """Count failed executions, given by job, once each, however often it is said."""
        await self._jobs.bulk_write(
            [
                UpdateOne(
                    {"_id": job_id, "counted_failures": {"$ne": execution_id}},
                    {
                        "$inc": {"consecutive_failures": 1},
                        "$push": {"counted_failures": {"$each": [execution_id], "$slice": -KEPT_FAILURE_IDS}},
                    },
                )
                for job_id, execution_ids in failures.items()
                for execution_id in execution_ids
            ],
            ordered=False,
        )
        cursor = self._jobs.find({"_id": {"$in": list(failures)}}, {"consecutive_failures": 1})
        return {document["_id"]: document["consecutive_failures"] async for document in cursor}

    async def stop(
        self,
        job_id: str,
        state: JobState,
        reason: str,
        note: str,
        now: datetime,
        *,
        ended: datetime | None = None,
        audit: AuditEvent | None = None,
    ) -> bool:
        """Take an ACTIVE job to PAUSED or FAILED on the scheduler's own decision."""
        # What ended before the job was resumed says nothing about it any more.
        unchanged = [{"state_time": None}, {"state_time": {"$lte": ended}}]
        result = await self._jobs.update_one(
            {"_id": job_id, "state": JobState.ACTIVE, **({"$or": unchanged} if ended else {})},
            {
                "$set": {"state": state, "state_reason": reason, "state_note": note, "state_time": now},
                "$inc": {"revision": 1},
                "$push": {
                    **self._form.state_change(StateChange(now, state, SCHEDULER_ACTOR, reason, note)),
                    **self._outbox.push(audit).get("$push", {}),
                },
            },
        )
        if result.modified_count == 1:
            self._outbox.written(audit)
        return result.modified_count == 1

    async def find_orphaned(self, before: datetime, limit: int, *, partition: int = 0, skip: int = 0) -> Sequence[str]:
        """Return ACTIVE jobs without a further fire that were last changed before an instant, by partition."""
        query: Document = {"state": JobState.ACTIVE, "next_due_time": None, "update_time": {"$lt": before}}
        if partition:
            query["partition"] = {"$gte": partition}
        order = [("next_due_time", 1), ("partition", 1)]
        cursor = self._jobs.find(query, {"_id": 1}, sort=order, skip=skip, limit=limit, hint="tick")
        return [document["_id"] async for document in cursor]

    def _passed_over(self, collection: str) -> None:
        """Hear of a document that could not be read; for those who count them."""


def _is_as_stored(job: Job) -> bool:
    """Whether a new job would be read as it is here: without secrets, and in whole milliseconds."""
    has_secrets = any(header.sensitive for header in job.definition.target.headers)
    return not has_secrets and job.create_time == truncate_to_millis(job.create_time)


def _shared_move(group: Sequence[CursorMove]) -> UpdateMany:
    """Return the update for jobs that share the whole move."""
    move = group[0]
    return UpdateMany(
        {
            "_id": {"$in": [each.job_id for each in group]},
            "state": JobState.ACTIVE,
            "schedule_revision": move.schedule_revision,
            "next_fire_time": move.expected,
        },
        {"$set": {"next_fire_time": move.next_fire_time, "next_due_time": move.next_due_time}},
    )


def _single_moves(moves: Sequence[CursorMove]) -> UpdateMany:
    """Return one update for different moves."""
    ids = [move.job_id for move in moves]
    own = [
        {
            "revision": move.schedule_revision,
            "expected": move.expected,
            "next": {"next_fire_time": move.next_fire_time, "next_due_time": move.next_due_time},
        }
        for move in moves
    ]
    unmoved = [{"$eq": ["$next_fire_time", "$$own.expected"]}, {"$eq": ["$schedule_revision", "$$own.revision"]}]
    moved = {"$cond": [{"$and": unmoved}, {"$mergeObjects": ["$$ROOT", "$$own.next"]}, "$$ROOT"]}
    return UpdateMany({"_id": {"$in": ids}, "state": JobState.ACTIVE}, [replace_with_own(ids, own, moved)])
