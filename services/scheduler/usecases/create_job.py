"""Creates jobs: checked, with their first fire computed, stored durably, and announced to the tick when it is near."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.common.clock import Clock
from libs.common.errors import AlreadyExistsError, FieldViolation, InvalidArgumentError
from libs.common.ids import new_id
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.definition_rules import check_definition
from services.scheduler.domain.fingerprint import fingerprint
from services.scheduler.domain.job import Job, JobDefinition
from services.scheduler.domain.schedule import TZDATA_VERSION, due_time, first_fire
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.ports import DueNudge, JobStore


@dataclass(frozen=True, slots=True)
class CreatedJob:
    """A job as stored; `replayed` when an earlier call with the same idempotency key had created it."""

    job: Job
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Serves CreateJob."""

    jobs: JobStore
    nudge: DueNudge
    clock: Clock

    async def __call__(
        self, caller: Caller, definition: JobDefinition, *, idempotency_key: str = "", validate_only: bool = False
    ) -> CreatedJob:
        """Create a job in the caller's org.

        Raises:
            InvalidArgumentError: with every violation.
            AlreadyExistsError: the idempotency key was used with other content.
        """
        now = truncate_to_millis(self.clock.now())
        check_definition(definition, now)
        _check_key(idempotency_key)
        if not caller.scope.allows(definition.project_id):
            raise InvalidArgumentError.of(
                "project_id", "PROJECT_NOT_ALLOWED", f"the credential does not cover project {definition.project_id!r}"
            )
        job = _new_job(caller, definition, idempotency_key, now)
        if validate_only:
            return CreatedJob(job)
        try:
            await self.jobs.insert(job)
        except AlreadyExistsError:
            first = await self.jobs.find_by_idempotency_key(caller.scope, idempotency_key)
            if first is None or first.fingerprint != job.fingerprint:
                raise
            return CreatedJob(first, replayed=True)
        if job.next_due_time is not None:
            self.nudge.notify(job.next_due_time)
        return CreatedJob(job)


def _new_job(caller: Caller, definition: JobDefinition, idempotency_key: str, now: datetime) -> Job:
    job_id = new_id()
    fire = first_fire(definition.schedule, now)
    return Job(
        job_id=job_id,
        org_id=caller.scope.org_id,
        definition=definition,
        create_time=now,
        update_time=now,
        creator=caller.subject,
        next_fire_time=fire,
        next_due_time=due_time(definition.schedule, job_id, fire) if fire else None,
        schedule_time=now,
        fingerprint=fingerprint(caller.scope.org_id, definition),
        idempotency_key=idempotency_key,
        tzdata_version=TZDATA_VERSION,
    )


def _check_key(key: str) -> None:
    if len(key) > 128 or not all("!" <= character <= "~" for character in key):
        raise InvalidArgumentError(
            [FieldViolation("idempotency_key", "INVALID_KEY", "must be at most 128 visible ASCII characters")]
        )
