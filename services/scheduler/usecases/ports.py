"""The ports of the scheduler's use cases: what they need of the database, of time and of each other.

Every write of an existing record is a compare-and-set, judged by what it matched. Methods for callers take an
`OrgScope` and cannot see beyond it; methods for the dispatch path take ids from the internal port and see all orgs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from libs.common.value_type import value_type
from services.scheduler.domain.api_key import ApiKey
from services.scheduler.domain.execution import (
    Attempt,
    Cause,
    DeliveryPath,
    Execution,
    ExecutionState,
    StoredResponse,
)
from services.scheduler.domain.job import Job, JobState
from services.scheduler.domain.partitions import PartitionTable
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


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """Which executions a list shows; what is empty or None does not restrict.

    A job's callbacks are no executions of it: they come only where no other cause is asked for.
    """

    job_id: str = ""
    project_id: str = ""
    states: frozenset[ExecutionState] = frozenset()
    causes: frozenset[Cause] = frozenset()
    fire_after: datetime | None = None
    fire_before: datetime | None = None
    trace_id: str = ""


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


@dataclass(frozen=True, slots=True)
class Lease:
    """The common part of a batch of grants."""

    request_id: str
    executor_id: str
    begin_time: datetime
    expire_time: datetime
    path: DeliveryPath


@value_type
class GrantWrite:
    """Grants one execution as it was read; a lost lease goes on record."""

    execution: Execution
    job_revision: int
    lost_attempt: Attempt | None = None


@dataclass(frozen=True, slots=True)
class GrantResult:
    """Which grants were written, and which met another execution of their job in the overlap slot."""

    granted: frozenset[str]
    overlapping: frozenset[str]


@value_type
class FinishWrite:
    """Ends an execution: reported under a lease (`fencing_token`), or READY and never to run (token as read)."""

    execution_id: str
    fencing_token: int
    expected: ExecutionState
    state: ExecutionState
    reason: str
    end_time: datetime
    settle: bool
    attempt: Attempt | None = None
    response: StoredResponse | None = None
    lag_micros: int | None = None
    """Set by the first attempt that started."""
    trace_id: str = ""
    is_report: bool = False
    """Whether a report of the lease's holder says so, which a repetition of it is recognized by."""
    lease_lost: bool = False
    """Whether it ends a lost lease: it counts only if that has run out by `end_time`, for its holder may renew it."""
    cause: Cause = Cause.SCHEDULE
    """The execution's, to count its end by."""


@value_type
class WaitWrite:
    """Puts a RUNNING execution back to READY until an instant: a retry when it carries an attempt, else a deferral."""

    execution_id: str
    fencing_token: int
    available_time: datetime
    reason: str = ""
    attempt: Attempt | None = None
    response: StoredResponse | None = None
    lag_micros: int | None = None
    """Set by the first attempt that started."""
    trace_id: str = ""
    wait_host: str = ""
    """The host, with its port, that it waits for; a reset of the host wakes it."""
    released: bool = False
    """Handed back by a draining executor: neither a retry nor a deferral in the books."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Who stops an execution, and why."""

    reason: str
    actor: str
    note: str = ""


class ExecutionStore(Protocol):
    """The executions. One writer: the scheduler."""

    async def insert_new(self, executions: Sequence[Execution], *, audit: AuditEvent | None = None) -> None:
        """Store executions durably; one whose id exists stays as it is. An event goes with a single one."""
        ...

    async def get(self, scope: OrgScope, execution_id: str) -> Execution:
        """Return an execution.

        Raises:
            NotFoundError: no such execution within the scope.
        """
        ...

    async def find_page(
        self, scope: OrgScope, where: ExecutionFilter, *, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Return executions, latest fire first, that come after (fire time, id), without their answers' bytes."""
        ...

    async def find_window(
        self, job_id: str, start: datetime, end: datetime, *, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Return a job's executions with fire times in [start, end], earliest first, without their answers' bytes.

        Only those that come after (fire time, id).
        """
        ...

    async def load(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return the executions that exist, by id, of any org, without answers."""
        ...

    def recall(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return those of the executions that this replica remembers, as it inserted or granted them; without a read.

        They may stand otherwise by now, so what is built on them is written by compare-and-set.
        """
        ...

    async def confirm(self) -> None:
        """Return when all that was read of executions before is durable.

        A read may show a write that is under way still and comes to nothing when the primary dies. Whoever answers for
        one that an earlier copy of a call made, and writes nothing itself, waits for it first (promise P9).
        """
        ...

    async def load_with_answers(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return the executions that exist, by id, of any org, with their answers but not the answers' bytes."""
        ...

    async def take_waiting(
        self, partitions: Collection[int], until: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Hand over executions whose wait ends by `until`: their poll time moves to the grace after that end."""
        ...

    async def find_begun(self, request_id: str, now: datetime) -> Sequence[Execution]:
        """Return the executions that a request was granted, while their leases hold at `now`."""
        ...

    async def find_overdue(
        self, now: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Return executions that no delivery reached in time, and those whose lease ran out, oldest first."""
        ...

    async def find_ready(
        self, until: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Return all executions that may begin by `until`, delivered or not, oldest first."""
        ...

    async def postpone(self, executions: Sequence[Execution], wake_time: datetime) -> None:
        """Let nobody look at executions before an instant; one that was changed since it was read stays as it is."""
        ...

    async def grant(self, lease: Lease, grants: Sequence[GrantWrite]) -> GrantResult:
        """Take READY (or lost) executions to RUNNING under new leases, each by compare-and-set on its fencing token."""
        ...

    async def queue_behind(self, execution: Execution, job_id: str, recheck_time: datetime) -> bool:
        """Let an overlapping execution wait for the running one; False when another one waits already."""
        ...

    async def is_slot_taken(self, job_id: str) -> bool:
        """Whether an execution of the job holds its overlap slot."""
        ...

    async def wake_queued(self, job_ids: Collection[str], now: datetime) -> bool:
        """Let executions continue that wait for another of their job to end; whether there were any."""
        ...

    async def wake_waiting(self, org_id: str, host: str, wake_time: datetime) -> int:
        """Let executions of an org that wait for a host continue at an instant, a bounded number; returns how many."""
        ...

    async def finish(self, writes: Sequence[FinishWrite]) -> frozenset[str]:
        """End executions, each by compare-and-set on state and fencing token; returns the ids that stand so now.

        A repetition of an applied write is among them, a stale one is not, whatever else ended the execution.
        """
        ...

    async def wait(self, writes: Sequence[WaitWrite]) -> frozenset[str]:
        """Put executions back to READY, each by compare-and-set on its fencing token; returns as `finish` does."""
        ...

    async def extend(self, executor_id: str, leases: Mapping[str, int], expire_time: datetime) -> Mapping[str, str]:
        """Renew leases (id to token); returns those that still hold, with the reason of a wanted cancellation or ''."""
        ...

    async def settled(self, execution_ids: Collection[str]) -> None:
        """Note that what the end of these executions means for their jobs is done."""
        ...

    async def find_unsettled(self, now: datetime, limit: int) -> Sequence[Execution]:
        """Return final executions whose consequences may not be done, for a process died in between."""
        ...

    async def find_live_jobs(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the jobs have an execution that is not final."""
        ...

    async def withdraw(self, job_id: str, reason: str, now: datetime) -> None:
        """End the READY, never begun, scheduled executions of a job that stops firing: SKIPPED with the reason.

        Only what fired by `now`. What was materialized ahead of its fire stays: the job may be active again by then,
        and the cursor may stand behind it, so to remove it could lose a fire. The beginning decides it at its time.
        """
        ...

    async def cancel_ready(
        self, execution: Execution, cancellation: Cancellation, now: datetime, *, audit: AuditEvent | None = None
    ) -> bool:
        """End a READY execution as CANCELLED, to be settled; False when it is not READY under the token as read."""
        ...

    async def request_cancel(
        self, execution: Execution, cancellation: Cancellation, *, audit: AuditEvent | None = None
    ) -> bool:
        """Ask the executor of a RUNNING execution to stop; False when it is not RUNNING, or was asked before."""
        ...

    async def cancel_job(self, job_id: str, cancellation: Cancellation, now: datetime) -> None:
        """End all READY executions of a job that is deleted, and ask the executors of RUNNING ones to stop.

        What was never tried ends SKIPPED, what was tried CANCELLED; what was materialized ahead of its fire goes away.
        """
        ...

    async def last_success_times(self, job_ids: Collection[str]) -> Mapping[str, datetime]:
        """Return the fire time of each job's latest SUCCEEDED execution; jobs without one are absent."""
        ...

    async def latest_states(self, job_id: str, limit: int) -> Sequence[ExecutionState]:
        """Return the states of the job's latest final, not skipped or cancelled executions, latest first."""
        ...


@dataclass(frozen=True, slots=True)
class WatchFilter:
    """Which changes a watch shows; what is empty does not restrict."""

    job_id: str = ""
    project_id: str = ""
    states: frozenset[ExecutionState] = frozenset()


class ExecutionChanges(Protocol):
    """An open stream of changes."""

    @property
    def resume_token(self) -> str:
        """Continues after what was returned last."""
        ...

    async def next(self) -> Execution | None:
        """Return the next changed execution, without its answer's bytes, or None after a moment without a change.

        Raises:
            OutOfRangeError: the place to continue from is too old by now.
        """
        ...


class ExecutionFeed(Protocol):
    """Tells of changes of executions as they happen."""

    def open(
        self, scope: OrgScope, where: WatchFilter, resume_token: str
    ) -> AbstractAsyncContextManager[ExecutionChanges]:
        """Watch from now on, or from where a token says.

        Raises:
            InvalidArgumentError: the token is not one of ours.
            OutOfRangeError: the token is too old.
        """
        ...


class BlobStore(Protocol):
    """Answers that are too large for their execution's record. A blob is written once, whole or not at all."""

    async def write(self, blob_id: str, chunks: AsyncIterator[bytes]) -> None:
        """Store bytes durably under an id that was never used before.

        When this fails or is cancelled, no blob is there to be read; `delete` removes what is left of it.

        Raises:
            UnavailableError: the store does not take it now.
        """
        ...

    def open_stream(self, blob_id: str) -> AsyncIterator[bytes]:
        """Return an answer's stored bytes in parts.

        Raises:
            NotFoundError: no such blob.
            UnavailableError: the store does not answer.
        """
        ...

    async def delete(self, blob_id: str) -> None:
        """Remove a blob, or what an upload that failed has left of it; nothing happens when there is neither.

        Raises:
            UnavailableError: the store does not answer.
        """
        ...


class PartitionStore(Protocol):
    """The one record of who looks after which partition."""

    async def read(self) -> PartitionTable:
        """Return the table; an empty one before the first write."""
        ...

    async def write(self, table: PartitionTable, expected_version: int) -> bool:
        """Store the table; False when somebody else wrote since it was read."""
        ...


class ApiKeyStore(Protocol):
    """The API keys. A project-limited scope sees only the keys that reach no other project."""

    async def insert(self, key: ApiKey, *, audit: AuditEvent | None = None) -> None:
        """Store a new key durably, with its event."""
        ...

    async def find(self, key_id: str) -> ApiKey | None:
        """Return the key with that id, of any org: asked before there is a caller."""
        ...

    async def find_page(self, scope: OrgScope, *, show_revoked: bool, after: str, limit: int) -> Sequence[ApiKey]:
        """Return keys, newest first, that come after the key id `after` (empty: from the start)."""
        ...

    async def revoke(self, scope: OrgScope, key_id: str, now: datetime, *, audit: AuditEvent | None = None) -> ApiKey:
        """Make a key stop to work; one that was revoked before keeps its first revoke time.

        Raises:
            NotFoundError: no such key within the scope.
        """
        ...


class AnswerQuota(Protocol):
    """How much of answers an org may keep; asked for each report, so it answers from memory."""

    def is_full(self, org_id: str) -> bool:
        """Whether the org's stored answers exceed its quota, as known some seconds ago."""
        ...

    def add_answer(self, org_id: str, size: int, end_time: datetime) -> None:
        """Note that an answer of so many bytes was stored, which stays for the retention from then."""
        ...


class SecretOpener(Protocol):
    """Opens what is encrypted at rest; for granted attempts, and to compare a submission with its first one."""

    def open(self, job: Job) -> Job | None:
        """Return the job with its secrets in clear; None when one of them cannot be read."""
        ...


class DueNudge(Protocol):
    """Wakes the acquire calls that wait at this replica."""

    def mark(self) -> int:
        """Return a mark of this moment; a wait since it misses no notification after it."""
        ...

    def notify(self, due_time: datetime) -> None:
        """Say that something is due at an instant."""
        ...

    async def wait(self, until: datetime, timeout: float, *, since: int) -> bool:
        """Wait until something due by `until` is, or since the mark was, notified; False: not in `timeout` seconds."""
        ...
