"""The jobs in memory: each method is one atomic step, judged as the compare-and-set of the real store is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from libs.common.errors import NotFoundError
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.begin import takes_overlap_slot
from services.scheduler.domain.job import KEPT_STATE_CHANGES, Job, JobState, StateChange
from services.scheduler.domain.planning import FireCursor
from services.scheduler.domain.target_url import split_target_url
from services.scheduler.testing.checkpoint import Checkpoint, as_stored, no_checkpoint, operation
from services.scheduler.usecases.audit import SCHEDULER_ACTOR, AuditEvent
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.job_store import CursorMove, DueJob, JobFilter

KEPT_FAILURE_IDS = 50
"""As many failed executions as the real store remembers."""


class MemoryJobStore:
    """Implements `JobStore`."""

    def __init__(self, checkpoint: Checkpoint = no_checkpoint) -> None:
        self._checkpoint = checkpoint
        self._jobs: dict[str, Job] = {}
        self._counted: dict[str, list[str]] = {}
        self._recalled: dict[str, Job] = {}
        """Jobs as they were inserted or loaded last: what a replica may remember of them."""
        self.events: list[AuditEvent] = []
        """The audit events that travelled with changes, in order."""

    @property
    def jobs(self) -> Mapping[str, Job]:
        """All jobs by id, for a test that looks on."""
        return self._jobs

    async def insert_new(self, jobs: Sequence[Job], *, audits: Sequence[AuditEvent] = ()) -> frozenset[str]:
        """Store new jobs; returns the ids of those that met a taken id, idempotency key or fingerprint."""
        events = dict(zip((job.job_id for job in jobs), audits, strict=True)) if audits else {}
        refused: set[str] = set()
        async with operation(self._checkpoint, "jobs.insert_new"):
            for job in jobs:
                if self._is_taken(job):
                    refused.add(job.job_id)
                    continue
                self._jobs[job.job_id] = self._recalled[job.job_id] = as_stored(job)
                self._note(events.get(job.job_id))
        return frozenset(refused)

    def _is_taken(self, job: Job) -> bool:
        return job.job_id in self._jobs or any(
            (job.idempotency_key and (other.org_id, other.idempotency_key) == (job.org_id, job.idempotency_key))
            or (job.duplicate_until and other.duplicate_until and other.fingerprint == job.fingerprint)
            for other in self._jobs.values()
        )

    def _note(self, event: AuditEvent | None) -> None:
        if event is not None:
            self.events.append(event)

    async def get(self, scope: OrgScope, job_id: str) -> Job:
        """Return a job, also a deleted one."""
        async with operation(self._checkpoint, "jobs.get"):
            job = self._jobs.get(job_id)
            if job is None or not _within(scope, job):
                raise NotFoundError("job", job_id)
        return job

    async def find_by_idempotency_keys(self, org_id: str, keys: Collection[str]) -> Mapping[str, Job]:
        """Return an org's jobs that were created under keys, by key."""
        async with operation(self._checkpoint, "jobs.find_by_idempotency_keys"):
            return {
                job.idempotency_key: job
                for job in self._jobs.values()
                if job.org_id == org_id and job.idempotency_key in keys
            }

    async def find_by_fingerprints(self, fingerprints: Collection[str]) -> Mapping[str, Job]:
        """Return the jobs that hold fingerprints, by fingerprint."""
        async with operation(self._checkpoint, "jobs.find_by_fingerprints"):
            return {
                job.fingerprint: job
                for job in self._jobs.values()
                if job.duplicate_until is not None and job.fingerprint in fingerprints
            }

    async def release_fingerprints(self, job_ids: Collection[str]) -> None:
        """Let equal submissions pass from now on."""
        async with operation(self._checkpoint, "jobs.release_fingerprints"):
            for job_id in job_ids:
                self._update(job_id, lambda _: True, duplicate_until=None)

    async def find_page(self, scope: OrgScope, where: JobFilter, *, after: str, limit: int) -> Sequence[Job]:
        """Return jobs, newest first, that come after the job id `after`."""
        async with operation(self._checkpoint, "jobs.find_page"):
            jobs = [
                job
                for job in self._jobs.values()
                if _within(scope, job) and (not after or job.job_id < after) and _matches(where, job)
            ]
        return sorted(jobs, key=lambda job: job.job_id, reverse=True)[:limit]

    async def replace(self, scope: OrgScope, job: Job, *, expected: Job, audit: AuditEvent | None = None) -> bool:
        """Store a changed job, unless somebody changed it or moved its cursor since it was read."""
        async with operation(self._checkpoint, "jobs.replace"):
            stored = self._jobs.get(job.job_id)
            matched = (
                stored is not None
                and _within(scope, stored)
                and (stored.revision, stored.state, stored.next_fire_time)
                == (expected.revision, expected.state, expected.next_fire_time)
            )
            if stored is not None and matched:
                counted = job.consecutive_failures == expected.consecutive_failures
                self._jobs[job.job_id] = replace(
                    as_stored(job),
                    org_id=stored.org_id,
                    create_time=stored.create_time,
                    purge_time=job.purge_time or stored.purge_time,
                    consecutive_failures=stored.consecutive_failures if counted else job.consecutive_failures,
                    # Taken at creation, and only given back.
                    duplicate_until=stored.duplicate_until if job.duplicate_until else None,
                )
                self._note(audit)
        return matched

    async def load(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """Return the jobs that exist, by id, of any org."""
        async with operation(self._checkpoint, "jobs.load"):
            loaded = {job_id: self._jobs[job_id] for job_id in job_ids if job_id in self._jobs}
        self._recalled |= loaded
        return loaded

    def recall(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """Return jobs as some replica inserted or loaded them, however they stand by now."""
        return {job_id: self._recalled[job_id] for job_id in job_ids if job_id in self._recalled}

    async def confirm(self) -> None:
        """Return at once: what is read here is there for good."""
        async with operation(self._checkpoint, "jobs.confirm"):
            pass

    async def find_existing(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the jobs exist."""
        async with operation(self._checkpoint, "jobs.find_existing"):
            return frozenset(self._jobs.keys() & set(job_ids))

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
        async with operation(self._checkpoint, "jobs.find_due"):
            due = [
                (job.next_due_time, job.partition, job)
                for job in self._jobs.values()
                if job.state is JobState.ACTIVE
                and job.partition in partitions
                and job.next_due_time is not None
                and job.next_due_time <= until
                and (since is None or job.next_due_time > since)
                and job.org_id not in without_orgs
            ]
        return [_due_job(job) for _, _, job in sorted(due, key=lambda item: item[:2])[:limit]]

    async def advance(self, moves: Sequence[CursorMove]) -> None:
        """Move cursors, each by compare-and-set."""
        async with operation(self._checkpoint, "jobs.advance"):
            for move in moves:
                self._update(
                    move.job_id,
                    lambda job, move=move: (  # type: ignore[misc] # mypy loses the bound default
                        job.state is JobState.ACTIVE
                        and job.schedule_revision == move.schedule_revision
                        and job.next_fire_time == move.expected
                    ),
                    next_fire_time=move.next_fire_time,
                    next_due_time=move.next_due_time,
                )

    async def complete(self, job_ids: Collection[str], now: datetime) -> None:
        """Make those jobs COMPLETED that are ACTIVE and have no further fire."""
        async with operation(self._checkpoint, "jobs.complete"):
            for job_id in job_ids:
                self._change_state(
                    job_id,
                    lambda job: job.state is JobState.ACTIVE and job.next_fire_time is None,
                    StateChange(now, JobState.COMPLETED, SCHEDULER_ACTOR),
                )

    async def reset_failures(self, job_ids: Collection[str]) -> None:
        """Set the failed executions in a row to none."""
        async with operation(self._checkpoint, "jobs.reset_failures"):
            for job_id in job_ids:
                self._update(job_id, lambda _: True, consecutive_failures=0)

    async def count_failures(self, failures: Mapping[str, Collection[str]]) -> Mapping[str, int]:
        """Count failed executions, given by job, once each, however often it is said."""
        async with operation(self._checkpoint, "jobs.count_failures"):
            for job_id, execution_ids in failures.items():
                for execution_id in execution_ids:
                    self._count_failure(job_id, execution_id)
            return {job_id: self._jobs[job_id].consecutive_failures for job_id in failures if job_id in self._jobs}

    def _count_failure(self, job_id: str, execution_id: str) -> None:
        job = self._jobs.get(job_id)
        counted = self._counted.setdefault(job_id, [])
        if job is not None and execution_id not in counted:
            counted.append(execution_id)
            del counted[:-KEPT_FAILURE_IDS]
            self._jobs[job_id] = replace(job, consecutive_failures=job.consecutive_failures + 1)

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
        async with operation(self._checkpoint, "jobs.stop"):
            stopped = self._change_state(
                job_id,
                lambda job: (
                    job.state is JobState.ACTIVE
                    and (ended is None or job.state_time is None or job.state_time <= truncate_to_millis(ended))
                ),
                StateChange(now, state, SCHEDULER_ACTOR, reason, note),
            )
            if stopped:
                self._update(job_id, lambda _: True, revision=self._jobs[job_id].revision + 1)
                self._update(job_id, lambda _: True, state_reason=reason, state_note=note)
                self._note(audit)
            return stopped

    async def find_orphaned(self, before: datetime, limit: int, *, partition: int = 0, skip: int = 0) -> Sequence[str]:
        """Return ACTIVE jobs without a further fire that were last changed before an instant, by partition."""
        async with operation(self._checkpoint, "jobs.find_orphaned"):
            orphans = [
                job
                for job in self._jobs.values()
                if job.state is JobState.ACTIVE
                and job.next_due_time is None
                and job.update_time < before
                and job.partition >= partition
            ]
        return [job.job_id for job in sorted(orphans, key=lambda job: job.partition)[skip : skip + limit]]

    def _change_state(self, job_id: str, matches: Callable[[Job], bool], change: StateChange) -> bool:
        job = self._jobs.get(job_id)
        return job is not None and self._update(
            job_id,
            matches,
            state=change.state,
            state_time=change.time,
            state_changes=(*job.state_changes, as_stored(change))[-KEPT_STATE_CHANGES:],
        )

    def _update(self, job_id: str, matches: Callable[[Job], bool], **changes: object) -> bool:
        job = self._jobs.get(job_id)
        if job is None or not matches(job):
            return False
        self._jobs[job_id] = as_stored(replace(job, **changes))  # type: ignore[arg-type] # fields by name
        return True


def _within(scope: OrgScope, job: Job) -> bool:
    return job.org_id == scope.org_id and scope.allows(job.definition.project_id)


def _matches(where: JobFilter, job: Job) -> bool:
    definition, fire = job.definition, job.next_fire_time
    after, before = where.next_fire_after, where.next_fire_before
    if (after or before) and job.state is not JobState.ACTIVE:
        # The cursor of a job that is not ACTIVE is where it stopped, and no next fire.
        return False
    return (
        (not where.project_id or definition.project_id == where.project_id)
        and (job.state in where.states if where.states else job.state is not JobState.DELETED)
        and all(definition.labels.get(key) == value for key, value in (where.labels or {}).items())
        and definition.name.startswith(where.name_prefix)
        and (not where.target_host or split_target_url(definition.target.url).host == where.target_host)
        and (after is None or (fire is not None and fire >= after))
        and (before is None or (fire is not None and fire < before))
    )


def _due_job(job: Job) -> DueJob:
    definition = job.definition
    if job.next_fire_time is None:
        raise ValueError(f"job {job.job_id} has a due time and no fire")
    return DueJob(
        cursor=FireCursor(job.job_id, definition.schedule, definition.catch_up, job.next_fire_time),
        org_id=job.org_id,
        project_id=definition.project_id,
        partition=job.partition,
        revision=job.revision,
        schedule_revision=job.schedule_revision,
        exclusive=takes_overlap_slot(definition.schedule, definition.overlap),
        trace_parent=job.trace_parent,
    )
