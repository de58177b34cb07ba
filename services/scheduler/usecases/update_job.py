"""Changes the definition of a job.

A new schedule counts from now. What fired before under the old one is recorded first and runs, as the tick would have
made it run; then the cursor moves to the new schedule's first fire from now, in one compare-and-set with the new
definition. What was materialized ahead under the old schedule stays: when somebody wants to begin it, the new schedule
decides (see `domain.begin`). To remove it here could lose a fire that both schedules name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.errors import FailedPreconditionError, InvalidArgumentError
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.definition_rules import check_definition
from services.scheduler.domain.fingerprint import fingerprint
from services.scheduler.domain.job import Job, JobDefinition, JobState, StateChange, with_state
from services.scheduler.domain.org import check_interval
from services.scheduler.domain.schedule import TZDATA_VERSION, due_time, first_fire
from services.scheduler.usecases.audit import JobAudit
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.change_job_state import MAX_TRIES, check_etag, lost_races
from services.scheduler.usecases.materialize import settle_cursor
from services.scheduler.usecases.org_settings import OrgQuotas
from services.scheduler.usecases.ports.due_nudge import DueNudge
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.job_store import JobStore

Edit = Callable[[JobDefinition], JobDefinition]
"""Makes the new definition of the stored one; asked again when somebody else changed it meanwhile."""


@dataclass(frozen=True, slots=True)
class UpdateJob:
    """Serves UpdateJob."""

    jobs: JobStore
    executions: ExecutionStore
    nudge: DueNudge
    quotas: OrgQuotas
    audit: JobAudit
    clock: Clock
    retention: timedelta
    """How long the record of a skipped fire is kept."""

    async def __call__(
        self, caller: Caller, job_id: str, edit: Edit, *, etag: str = "", validate_only: bool = False
    ) -> Job:
        """Change a job's definition; returns the job as stored, or as it would be.

        An edit that changes nothing leaves the job as it is, and its revision with it.

        Raises:
            InvalidArgumentError: the edit, or what comes of it, is refused.
            NotFoundError: no such job within the caller's scope.
            AbortedError: the etag is not the present one, or others kept changing the job.
            FailedPreconditionError: the job is deleted.
        """
        for _ in range(MAX_TRIES):
            job = await self.jobs.get(caller.scope, job_id)
            check_etag(job, etag)
            _require_existing(job)
            definition = edit(job.definition)
            now = truncate_to_millis(self.clock.now())
            check_definition(definition, now, known_schedule=job.definition.schedule)
            if definition == job.definition:
                await self.jobs.confirm()
                return job
            if definition.schedule != job.definition.schedule:
                await self._check_interval(job.org_id, definition, now)
            changed = _changed(job, definition, caller, now)
            if validate_only:
                return changed
            if changed.schedule_revision != job.schedule_revision:
                await settle_cursor(self.executions, job, now, skip_reason="", retention=self.retention)
            # If we die here, the fires up to now have their executions, as the next tick would have made them.
            event = self.audit.changed(caller, job, changed)
            if await self.jobs.replace(caller.scope, changed, expected=job, audit=event):
                if changed.next_due_time is not None:
                    self.nudge.notify(changed.next_due_time)
                return changed
        raise lost_races(job_id)

    async def _check_interval(self, org_id: str, definition: JobDefinition, now: datetime) -> None:
        violations = list(check_interval(definition.schedule, now, await self.quotas.min_interval(org_id)))
        if violations:
            raise InvalidArgumentError(violations)


def _changed(job: Job, definition: JobDefinition, caller: Caller, now: datetime) -> Job:
    """Return the job with a new definition."""
    revision = job.revision + 1
    new_fingerprint = fingerprint(job.org_id, definition)
    changed = replace(
        job,
        definition=definition,
        revision=revision,
        definition_revision=revision,
        fingerprint=new_fingerprint,
        # It no longer equals what was submitted: to submit that again is no duplicate.
        duplicate_until=job.duplicate_until if new_fingerprint == job.fingerprint else None,
        update_time=now,
    )
    if definition.schedule == job.definition.schedule:
        return changed
    fire = first_fire(definition.schedule, now)
    if job.state is JobState.COMPLETED:
        changed = with_state(changed, StateChange(now, JobState.ACTIVE, caller.subject))
    return replace(
        changed,
        next_fire_time=fire,
        next_due_time=due_time(definition.schedule, job.job_id, fire) if fire else None,
        schedule_revision=job.schedule_revision + 1,
        schedule_time=now,
        tzdata_version=TZDATA_VERSION,
    )


def _require_existing(job: Job) -> None:
    if job.state is JobState.DELETED:
        raise FailedPreconditionError(
            "WRONG_JOB_STATE",
            f"cannot update job {job.job_id}: it is DELETED",
            metadata={"jobId": job.job_id, "state": job.state.value, "action": "update"},
        )
