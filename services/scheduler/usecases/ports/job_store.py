"""The jobs, as the use cases need them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from libs.common.value_type import value_type
from services.scheduler.domain.job import Job, JobState
from services.scheduler.domain.planning import FireCursor
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.caller import OrgScope


@value_type
class DueJob:
    """The part of a job that the tick needs, read without its target."""

    cursor: FireCursor
    org_id: str
    project_id: str
    partition: int
    revision: int
    schedule_revision: int
    exclusive: bool
    trace_parent: str


@value_type
class CursorMove:
    """Moves a job's cursor from an expected fire to the next one; loses against a change of the schedule."""

    job_id: str
    schedule_revision: int
    expected: datetime
    next_fire_time: datetime | None
    next_due_time: datetime | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list shows; what is empty or None does not restrict."""

    project_id: str = ""
    states: frozenset[JobState] = frozenset()
    labels: Mapping[str, str] | None = None
    name_prefix: str = ""
    target_host: str = ""
    next_fire_after: datetime | None = None
    next_fire_before: datetime | None = None


class JobStore(Protocol):
    """The jobs. One writer: the scheduler."""

    async def insert_new(self, jobs: Sequence[Job], *, audits: Sequence[AuditEvent] = ()) -> frozenset[str]:
        """Store new jobs durably, each with the event that names it; returns the ids of those refused.

        One is refused when another job came first: by its idempotency key in the org, or by holding its fingerprint
        (see `Job.duplicate_until`). Uniqueness is the database's, so that it holds between any two calls.
        """
        ...

    async def get(self, scope: OrgScope, job_id: str) -> Job:
        """Return a job, also a deleted one.

        Raises:
            NotFoundError: no such job within the scope.
        """
        ...

    async def find_by_idempotency_keys(self, org_id: str, keys: Collection[str]) -> Mapping[str, Job]:
        """Return an org's jobs that were created under keys, by key, in any of its projects."""
        ...

    async def find_by_fingerprints(self, fingerprints: Collection[str]) -> Mapping[str, Job]:
        """Return the jobs that hold fingerprints, by fingerprint, which tells the org and the project."""
        ...

    async def release_fingerprints(self, job_ids: Collection[str]) -> None:
        """Let equal submissions pass from now on; jobs that hold no fingerprint stay as they are."""
        ...

    async def find_page(self, scope: OrgScope, where: JobFilter, *, after: str, limit: int) -> Sequence[Job]:
        """Return jobs, newest first, that come after the job id `after` (empty: from the start)."""
        ...

    async def replace(self, scope: OrgScope, job: Job, *, expected: Job, audit: AuditEvent | None = None) -> bool:
        """Store a changed job; False, and nothing written, when revision, state or cursor is not the expected one.

        One whose `duplicate_until` has become None gives its fingerprint back.
        """
        ...

    async def load(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """Return the jobs that exist and can be read, by id, of any org."""
        ...

    def recall(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """Return those of the jobs that this replica remembers, as it stored or loaded them last; without a read.

        They may stand otherwise by now, so what is built on them is written by compare-and-set.
        """
        ...

    async def confirm(self) -> None:
        """Return when all that was read of jobs before is durable; as `ExecutionStore.confirm`."""
        ...

    async def find_existing(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the jobs exist, whether this version can read them or not."""
        ...

    async def find_due(
        self,
        partitions: Collection[int],
        until: datetime,
        limit: int,
        *,
        since: datetime | None = None,
        without_orgs: Collection[str] = (),
    ) -> Sequence[DueJob]:
        """Return ACTIVE jobs of the partitions that are due by `until`, oldest first.

        Without those that were due before `since`, and without those of some orgs.
        """
        ...

    async def advance(self, moves: Sequence[CursorMove]) -> None:
        """Move cursors, each by compare-and-set; one that moved already, or whose schedule changed, stays as it is."""
        ...

    async def complete(self, job_ids: Collection[str], now: datetime) -> None:
        """Make those jobs COMPLETED that are ACTIVE and have no further fire."""
        ...

    async def reset_failures(self, job_ids: Collection[str]) -> None:
        """Set the failed executions in a row to none."""
        ...

    async def count_failures(self, failures: Mapping[str, Collection[str]]) -> Mapping[str, int]:
        """Count failed executions, given by job, once each, however often it is said; return the failures in a row."""
        ...

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
        """Take an ACTIVE job to PAUSED or FAILED on the scheduler's own decision; False when it was not ACTIVE.

        Nor when it came into that state after `ended`, the end of the execution that is the cause.
        """
        ...

    async def find_orphaned(self, before: datetime, limit: int, *, partition: int = 0, skip: int = 0) -> Sequence[str]:
        """Return ACTIVE jobs without a further fire that were last touched before an instant.

        By partition, from one on, without the first `skip`.
        """
        ...
