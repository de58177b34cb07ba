"""Pauses, resumes and deletes jobs.

Each first settles the cursor: fires that came due before the change but were not materialized yet (no dispatcher was
up) get their record now, so that no fire of an active job is lost to a pause (promises P1 and P5). The change itself is
one compare-and-set on revision, state and cursor; when a tick moves the cursor in between, it is done again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.errors import AbortedError, FailedPreconditionError, FieldViolation, InvalidArgumentError
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.execution import Cause, Execution, ExecutionState, scheduled_execution_id
from services.scheduler.domain.job import Job, JobState
from services.scheduler.domain.planning import FireCursor, PlannedFire, plan_fires
from services.scheduler.domain.schedule import TZDATA_VERSION, due_time, next_fire
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.ports import DueNudge, ExecutionStore, JobStore

MAX_TRIES = 10
"""Lost races before a change gives up as ABORTED; a tick moves a cursor once per fire."""

MAX_NOTE = 500


@dataclass(frozen=True, slots=True)
class ChangeJobState:
    """Serves PauseJob, ResumeJob and DeleteJob."""

    jobs: JobStore
    executions: ExecutionStore
    nudge: DueNudge
    clock: Clock
    retention: timedelta
    """How long a deleted job and the record of a skipped fire are kept."""

    async def pause(self, caller: Caller, job_id: str, *, etag: str = "", note: str = "") -> Job:
        """Pause an ACTIVE job; a PAUSED one stays as it is.

        Raises:
            NotFoundError, AbortedError: as for every change.
            FailedPreconditionError: the job is COMPLETED, FAILED or deleted.
        """
        if len(note) > MAX_NOTE:
            raise InvalidArgumentError([FieldViolation("note", "TOO_LONG", f"exceeds {MAX_NOTE} characters")])

        def to_paused(job: Job, now: datetime) -> Job:
            _require(job, {JobState.ACTIVE}, "pause")
            return replace(
                job, state=JobState.PAUSED, state_reason="PAUSED_BY_CALLER", state_note=note, update_time=now
            )

        return await self._change(caller, job_id, etag, to_paused, already=JobState.PAUSED, skip_reason="JOB_PAUSED")

    async def resume(self, caller: Caller, job_id: str, *, etag: str = "") -> Job:
        """Make a PAUSED or FAILED job ACTIVE from now on; an ACTIVE one stays as it is.

        Raises:
            NotFoundError, AbortedError: as for every change.
            FailedPreconditionError: the job is COMPLETED or deleted, or has no further fire.
        """

        def to_active(job: Job, now: datetime) -> Job:
            _require(job, {JobState.PAUSED, JobState.FAILED}, "resume")
            fire = next_fire(job.definition.schedule, now)
            if fire is None:
                raise FailedPreconditionError(
                    "NO_FURTHER_FIRE",
                    f"job {job_id} has no fire after now; change its schedule first",
                    metadata={"jobId": job_id},
                )
            return replace(
                job,
                state=JobState.ACTIVE,
                state_reason="",
                state_note="",
                next_fire_time=fire,
                next_due_time=due_time(job.definition.schedule, job_id, fire),
                consecutive_failures=0,
                tzdata_version=TZDATA_VERSION,
                update_time=now,
            )

        job = await self._change(caller, job_id, etag, to_active, already=JobState.ACTIVE)
        if job.next_due_time is not None:
            self.nudge.notify(job.next_due_time)
        return job

    async def delete(self, caller: Caller, job_id: str, *, etag: str = "") -> Job:
        """Delete a job; a deleted one stays as it is.

        Raises:
            NotFoundError, AbortedError: as for every change.
        """

        def to_deleted(job: Job, now: datetime) -> Job:
            return replace(
                job,
                state=JobState.DELETED,
                state_reason="DELETED_BY_CALLER",
                next_fire_time=None,
                next_due_time=None,
                update_time=now,
                delete_time=now,
                purge_time=now + self.retention,
            )

        return await self._change(caller, job_id, etag, to_deleted, already=JobState.DELETED, skip_reason="JOB_DELETED")

    async def _change(
        self,
        caller: Caller,
        job_id: str,
        etag: str,
        change: Callable[[Job, datetime], Job],
        *,
        already: JobState,
        skip_reason: str = "",
    ) -> Job:
        for _ in range(MAX_TRIES):
            job = await self.jobs.get(caller.scope, job_id)
            check_etag(job, etag)
            if job.state is already:
                return job
            now = truncate_to_millis(self.clock.now())
            changed = replace(change(job, now), revision=job.revision + 1)
            if skip_reason:
                await self._record_unfired(job, skip_reason, now)
            if await self.jobs.replace(caller.scope, changed, expected=job):
                if skip_reason:
                    await self.executions.withdraw(job_id, skip_reason, now)
                    # If we die here, what is READY is skipped with the same reason when somebody wants to begin it.
                return changed
        raise AbortedError(
            "CONCURRENT_CHANGE", f"job {job_id} kept changing during the call", metadata={"jobId": job_id}
        )

    async def _record_unfired(self, job: Job, reason: str, now: datetime) -> None:
        """Record the fires between the cursor and now, which the job will now never run."""
        if job.state is not JobState.ACTIVE:
            return
        next_fire_time = job.next_fire_time
        while next_fire_time is not None and next_fire_time <= now:
            plan = plan_fires(
                FireCursor(job.job_id, job.definition.schedule, job.definition.catch_up, next_fire_time), now, now
            )
            if not plan.fires:
                return
            await self.executions.insert_new([self._skipped(job, fire, reason, now) for fire in plan.fires])
            next_fire_time = plan.next_fire_time

    def _skipped(self, job: Job, fire: PlannedFire, reason: str, now: datetime) -> Execution:
        return Execution(
            execution_id=scheduled_execution_id(job.job_id, fire.fire_time),
            job_id=job.job_id,
            org_id=job.org_id,
            project_id=job.definition.project_id,
            partition=job.partition,
            cause=Cause.SCHEDULE,
            fire_time=fire.fire_time,
            due_time=fire.due_time,
            create_time=now,
            job_revision=job.revision,
            schedule_revision=job.schedule_revision,
            state=ExecutionState.SKIPPED,
            state_reason=fire.skip_reason or reason,
            phase=None,
            end_time=now,
            expire_time=now + self.retention,
        )


def check_etag(job: Job, etag: str) -> None:
    """Refuse a write whose guard is not the job's present etag.

    Raises:
        AbortedError: the job changed since the caller read it.
    """
    if etag and etag != job.etag:
        raise AbortedError(
            "ETAG_MISMATCH",
            f"job {job.job_id} changed: its etag is {job.etag}, not {etag[:64]}",
            metadata={"jobId": job.job_id, "currentEtag": job.etag},
        )


def _require(job: Job, states: set[JobState], what: str) -> None:
    if job.state not in states:
        raise FailedPreconditionError(
            "WRONG_JOB_STATE",
            f"cannot {what} job {job.job_id}: it is {job.state.value}",
            metadata={"jobId": job.job_id, "state": job.state.value},
        )
