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
from libs.common.errors import AbortedError, FailedPreconditionError, InvalidArgumentError
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.definition_rules import check_length
from services.scheduler.domain.job import Job, JobState, StateChange, with_state
from services.scheduler.domain.planning import UNUSABLE
from services.scheduler.domain.schedule import TZDATA_VERSION, due_time, next_fire
from services.scheduler.usecases.audit import JobAudit
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.materialize import settle_cursor
from services.scheduler.usecases.ports.due_nudge import DueNudge
from services.scheduler.usecases.ports.execution_store import Cancellation, ExecutionStore
from services.scheduler.usecases.ports.job_store import JobStore

MAX_TRIES = 10
"""Lost races before a change gives up as ABORTED; a tick moves a cursor once per fire."""

MAX_NOTE = 500

Change = Callable[[Job, datetime], Job]


@dataclass(frozen=True, slots=True)
class ChangeJobState:
    """Serves PauseJob, ResumeJob and DeleteJob."""

    jobs: JobStore
    executions: ExecutionStore
    nudge: DueNudge
    audit: JobAudit
    clock: Clock
    retention: timedelta
    """How long a deleted job and the record of a skipped fire are kept."""

    async def pause(self, caller: Caller, job_id: str, *, etag: str = "", note: str = "") -> Job:
        """Pause an ACTIVE job; a PAUSED one stays as it is.

        Raises:
            NotFoundError, AbortedError: as for every change.
            FailedPreconditionError: the job is COMPLETED, FAILED or deleted.
        """
        check_note(note)
        return await self.pause_found(caller, await self._get(caller, job_id, etag), etag=etag, note=note)

    async def pause_found(self, caller: Caller, found: Job, *, etag: str = "", note: str = "") -> Job:
        """Pause a job as it was just read."""

        def to_paused(job: Job, now: datetime) -> Job:
            _require(job, {JobState.ACTIVE}, "pause")
            change = StateChange(now, JobState.PAUSED, caller.subject, "PAUSED_BY_CALLER", note)
            return replace(with_state(job, change), update_time=now)

        job, changed = await self._change(
            caller, found, etag, to_paused, already=JobState.PAUSED, skip_reason="JOB_PAUSED"
        )
        if changed:
            # If we die here, what is READY is skipped with the same reason when somebody wants to begin it.
            await self.executions.withdraw(job.job_id, "JOB_PAUSED", job.update_time)
        return job

    async def resume(self, caller: Caller, job_id: str, *, etag: str = "") -> Job:
        """Make a PAUSED or FAILED job ACTIVE from now on; an ACTIVE one stays as it is.

        Raises:
            NotFoundError, AbortedError: as for every change.
            FailedPreconditionError: the job is COMPLETED or deleted, or has no further fire.
        """
        return await self.resume_found(caller, await self._get(caller, job_id, etag), etag=etag)

    async def resume_found(self, caller: Caller, found: Job, *, etag: str = "") -> Job:
        """Resume a job as it was just read."""

        def to_active(job: Job, now: datetime) -> Job:
            _require(job, {JobState.PAUSED, JobState.FAILED}, "resume")
            try:
                fire = next_fire(job.definition.schedule, now)
            except UNUSABLE:
                fire = None
            if fire is None:
                raise FailedPreconditionError(
                    "NO_FURTHER_FIRE",
                    f"job {job.job_id} has no fire after now; change its schedule first",
                    metadata={"jobId": job.job_id},
                )
            return replace(
                with_state(job, StateChange(now, JobState.ACTIVE, caller.subject)),
                next_fire_time=fire,
                next_due_time=due_time(job.definition.schedule, job.job_id, fire),
                consecutive_failures=0,
                tzdata_version=TZDATA_VERSION,
                update_time=now,
            )

        job, _ = await self._change(caller, found, etag, to_active, already=JobState.ACTIVE)
        if job.next_due_time is not None:
            self.nudge.notify(job.next_due_time)
        return job

    async def delete(self, caller: Caller, job_id: str, *, etag: str = "") -> Job:
        """Delete a job, with all that waits or runs of it; a deleted one stays as it is.

        Raises:
            NotFoundError, AbortedError: as for every change.
        """

        def to_deleted(job: Job, now: datetime) -> Job:
            change = StateChange(now, JobState.DELETED, caller.subject, "DELETED_BY_CALLER")
            return replace(
                with_state(job, change),
                next_fire_time=None,
                next_due_time=None,
                # An equal submission is no duplicate of what is gone.
                duplicate_until=None,
                update_time=now,
                delete_time=now,
                purge_time=now + self.retention,
            )

        found = await self._get(caller, job_id, etag)
        job, _ = await self._change(
            caller, found, etag, to_deleted, already=JobState.DELETED, skip_reason="JOB_DELETED"
        )
        # Also for a job that was deleted before: if that call died on this line, its executors were never asked.
        await self.executions.cancel_job(job_id, Cancellation("JOB_DELETED", caller.subject), job.update_time)
        return job

    async def _get(self, caller: Caller, job_id: str, etag: str) -> Job:
        job = await self.jobs.get(caller.scope, job_id)
        check_etag(job, etag)
        return job

    async def _change(
        self, caller: Caller, found: Job, etag: str, change: Change, *, already: JobState, skip_reason: str = ""
    ) -> tuple[Job, bool]:
        """Return the job in its new state, and whether this call brought it there."""
        job = found
        for _ in range(MAX_TRIES):
            if job.state is already:
                await self.jobs.confirm()
                return job, False
            now = truncate_to_millis(self.clock.now())
            changed = replace(change(job, now), revision=job.revision + 1)
            await settle_cursor(self.executions, job, now, skip_reason=skip_reason, retention=self.retention)
            # If we die here, fires up to now are skipped although the job goes on; they say so, and there are at most
            # those of a moment without a tick.
            event = self.audit.changed(caller, job, changed, note=changed.state_note)
            if await self.jobs.replace(caller.scope, changed, expected=job, audit=event):
                return changed, True
            job = await self._get(caller, job.job_id, etag)
        raise lost_races(job.job_id)


def check_etag(job: Job, etag: str) -> None:
    """Refuse a write whose guard is not the job's present etag.

    Raises:
        AbortedError: the job changed since the caller read it.
    """
    if etag and etag != job.etag:
        raise AbortedError(
            "ETAG_MISMATCH",
            f"job {job.job_id} changed: its etag is {job.etag}, not {etag[:64]}",
            metadata={"jobId": job.job_id, "currentEtag": job.etag, "etag": etag[:64]},
        )


def check_note(note: str) -> None:
    """Refuse a note that is too long, or holds a NUL character.

    Raises:
        InvalidArgumentError: TOO_LONG or INVALID_TEXT on `note`.
    """
    if violations := list(check_length("note", note, 0, MAX_NOTE)):
        raise InvalidArgumentError(violations)


def lost_races(job_id: str) -> AbortedError:
    """Return the error of a change that lost to others again and again."""
    return AbortedError("CONCURRENT_CHANGE", f"job {job_id} kept changing during the call", metadata={"jobId": job_id})


def _require(job: Job, states: set[JobState], what: str) -> None:
    if job.state not in states:
        raise FailedPreconditionError(
            "WRONG_JOB_STATE",
            f"cannot {what} job {job.job_id}: it is {job.state.value}",
            metadata={"jobId": job.job_id, "state": job.state.value, "action": what},
        )
