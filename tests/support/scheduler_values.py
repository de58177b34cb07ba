"""Jobs and executions for tests of the scheduler: valid ones, of which a test changes what it is about."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from services.scheduler.domain.execution import (
    Attempt,
    Cause,
    DeliveryPath,
    Execution,
    ExecutionState,
    Outcome,
    Phase,
    requested_execution_id,
    scheduled_execution_id,
)
from services.scheduler.domain.job import Job, JobDefinition, Target, partition_of
from services.scheduler.domain.schedule import Cron, OneTimeAt, Schedule, due_time, first_fire
from services.scheduler.usecases.caller import Caller, OrgScope
from services.scheduler.usecases.ports.execution_writes import FinishWrite, GrantWrite, Lease, WaitWrite

NOW = datetime(2040, 1, 2, 12, 0, tzinfo=UTC)
"""A Monday at noon, so far ahead that no database expires what is kept until then."""

LATER = NOW + timedelta(seconds=10)
RETENTION = timedelta(days=30)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
EVERY_MINUTE = Schedule(Cron("* * * * *"))
SCOPE = OrgScope("org-a")
CALLER = Caller("tester", SCOPE, frozenset())
_numbers: Iterator[int] = itertools.count(1)


def at(seconds: float) -> datetime:
    """Return the instant that many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def once(instant: datetime = NOW) -> Schedule:
    """Return a one-time schedule."""
    return Schedule(OneTimeAt(instant))


def new_job_id() -> str:
    """Return an id shaped like a ULID; later ones sort later."""
    return f"01K{next(_numbers):023d}"


def a_definition(**changes: Any) -> JobDefinition:
    """Return the definition of a job that fires every minute."""
    plain = JobDefinition("daily summary", EVERY_MINUTE, Target("https://api.example.com/v1", "Say hello."))
    return replace(plain, **changes)


def a_job(definition: JobDefinition | None = None, *, created: datetime = NOW, **changes: Any) -> Job:
    """Return a job as it is right after its creation at `created`."""
    definition = definition or a_definition()
    job_id = changes.pop("job_id", None) or new_job_id()
    fire = first_fire(definition.schedule, created)
    job = Job(
        job_id=job_id,
        org_id=SCOPE.org_id,
        definition=definition,
        create_time=created,
        update_time=created,
        creator="tester",
        next_fire_time=fire,
        next_due_time=due_time(definition.schedule, job_id, fire) if fire else None,
        schedule_time=created,
    )
    return replace(job, **changes)


def an_execution(job: Job | None = None, fire_time: datetime = NOW, **changes: Any) -> Execution:
    """Return a READY execution of a fire, as the tick materializes it."""
    job_id = job.job_id if job else changes.pop("job_id", None) or new_job_id()
    execution = Execution(
        execution_id=scheduled_execution_id(job_id, fire_time),
        job_id=job_id,
        org_id=job.org_id if job else SCOPE.org_id,
        project_id=job.definition.project_id if job else "default",
        partition=partition_of(job_id),
        cause=Cause.SCHEDULE,
        fire_time=fire_time,
        due_time=fire_time,
        create_time=fire_time,
        job_revision=job.revision if job else 1,
        schedule_revision=job.schedule_revision if job else 1,
        phase=Phase.DISPATCHED,
        wake_time=fire_time + 2 * SECOND,
        available_time=fire_time,
    )
    return replace(execution, **changes)


def a_manual_execution(job: Job, time: datetime = NOW, unique: str = "1") -> Execution:
    """Return a READY execution that a caller asked for."""
    return an_execution(
        job, time, execution_id=requested_execution_id(job.job_id, unique), cause=Cause.MANUAL, phase=Phase.WAITING
    )


def a_lease(request_id: str = "request-1", executor_id: str = "executor-1", *, time: datetime = NOW) -> Lease:
    """Return a lease of 15 seconds."""
    return Lease(request_id, executor_id, time, time + 15 * SECOND, DeliveryPath.STREAM)


def grants(*executions: Execution, lost: Attempt | None = None) -> list[GrantWrite]:
    """Return the grants of executions as they were read."""
    return [GrantWrite(execution, job_revision=1, lost_attempt=lost) for execution in executions]


def an_attempt(outcome: Outcome = Outcome.FAILED, *, token: int = 1, **changes: Any) -> Attempt:
    """Return an ended attempt."""
    attempt = Attempt(
        number=token,
        outcome=outcome,
        begin_time=NOW,
        start_time=NOW,
        end_time=NOW + SECOND,
        executor_id="executor-1",
        fencing_token=token,
        decision="RETRY",
    )
    return replace(attempt, **changes)


def a_finish(execution: Execution, token: int = 1, **changes: Any) -> FinishWrite:
    """Return the write of a reported success."""
    write = FinishWrite(
        execution_id=execution.execution_id,
        fencing_token=token,
        expected=ExecutionState.RUNNING,
        state=ExecutionState.SUCCEEDED,
        reason="",
        end_time=NOW + SECOND,
        settle=False,
        attempt=an_attempt(Outcome.SUCCEEDED, token=token),
        is_report=True,
    )
    return replace(write, **changes)


def a_retry(execution: Execution, token: int = 1, *, until: datetime = LATER, **changes: Any) -> WaitWrite:
    """Return the write of a reported failure that is to be tried again."""
    write = WaitWrite(execution.execution_id, token, until, attempt=an_attempt(token=token))
    return replace(write, **changes)


def a_deferral(execution: Execution, token: int = 1, *, until: datetime = LATER, released: bool = False) -> WaitWrite:
    """Return the write of an execution that was put back untried."""
    return WaitWrite(execution.execution_id, token, until, "RELEASED" if released else "RATE_LIMIT", released=released)
