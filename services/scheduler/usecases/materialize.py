"""Makes the records of fires: the same for the tick and for a change of a job that settles its cursor first."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from services.scheduler.domain.begin import is_one_time, takes_overlap_slot
from services.scheduler.domain.execution import Cause, Execution, ExecutionState, Phase, scheduled_execution_id
from services.scheduler.domain.job import Job, JobState
from services.scheduler.domain.planning import UNUSABLE, FireCursor, FirePlan, PlannedFire, plan_fires
from services.scheduler.domain.schedule import OneTimeAt, Schedule, due_time
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.job_store import DueJob

_HOLD_REASONS = {JobState.PAUSED: "JOB_PAUSED", JobState.FAILED: "JOB_FAILED"}


CATCH_UP_REASON = "CATCH_UP_PACE"
"""Why a missed fire waits for its slot."""


def materialize(
    job: DueJob, fire: PlannedFire, now: datetime, *, phase: Phase, wake_time: datetime, retention: timedelta
) -> Execution:
    """Return the execution of a decided fire: READY in a phase, or SKIPPED and kept for `retention`."""
    skipped = bool(fire.skip_reason)
    return Execution(
        execution_id=scheduled_execution_id(job.cursor.job_id, fire.fire_time),
        job_id=job.cursor.job_id,
        org_id=job.org_id,
        project_id=job.project_id,
        partition=job.partition,
        cause=Cause.SCHEDULE,
        fire_time=fire.fire_time,
        due_time=fire.due_time,
        create_time=now,
        job_revision=job.revision,
        schedule_revision=job.schedule_revision,
        exclusive=job.exclusive,
        state=ExecutionState.SKIPPED if skipped else ExecutionState.READY,
        state_reason=fire.skip_reason,
        phase=None if skipped else phase,
        wake_time=None if skipped else wake_time,
        available_time=fire.due_time,
        end_time=now if skipped else None,
        expire_time=now + retention if skipped else None,
        # What fires again and again is no part of the call that once asked for it (see `TickTraces`).
        trace_parent=job.trace_parent if is_one_time(job.cursor.schedule) else "",
    )


async def settle_cursor(
    executions: ExecutionStore, job: Job, now: datetime, *, skip_reason: str, retention: timedelta
) -> None:
    """Record the fires of a job's ACTIVE time that its cursor stands before, since a change is to move it past them.

    They end SKIPPED with the reason; without one they run, as the tick would have made them run. A job that the
    scheduler itself stopped stands as it stood then: what fired before its stop, and only that, is skipped for it. Of a
    schedule that cannot be evaluated any more just the fire at the cursor is known.
    """
    until, reason = now, skip_reason
    if job.state in _HOLD_REASONS:
        until, reason = job.state_time or job.update_time, _HOLD_REASONS[job.state]
    elif job.state is not JobState.ACTIVE:
        return
    fire_time = job.next_fire_time
    while fire_time is not None and fire_time <= until:
        due_job = _due_part(job, fire_time)
        try:
            plan = _plan(due_job.cursor, now, until)
        except UNUSABLE:
            # The job could neither be mended nor deleted otherwise.
            plan = _plan(replace(due_job.cursor, schedule=Schedule(OneTimeAt(fire_time))), now, until)
        fires = [replace(f, skip_reason=f.skip_reason or reason) for f in plan.fires if f.fire_time <= until]
        # The tick takes over those that run, as it takes over retries; if it made them itself meanwhile, these change
        # nothing.
        await executions.insert_new(
            [
                materialize(
                    due_job, fire, now, phase=Phase.WAITING, wake_time=max(fire.due_time, now), retention=retention
                )
                for fire in fires
            ]
        )
        fire_time = plan.next_fire_time


def _plan(cursor: FireCursor, now: datetime, until: datetime) -> FirePlan:
    # A fire counts from its fire time on, also while its jitter holds it back.
    return plan_fires(cursor, now, max(until, due_time(cursor.schedule, cursor.job_id, cursor.next_fire_time)))


def held_back(execution: Execution, until: datetime) -> Execution:
    """Return the execution of a missed fire that waits for its slot."""
    return replace(execution, phase=Phase.WAITING, wake_time=until, available_time=until, wait_reason=CATCH_UP_REASON)


def _due_part(job: Job, fire_time: datetime) -> DueJob:
    definition = job.definition
    return DueJob(
        cursor=FireCursor(job.job_id, definition.schedule, definition.catch_up, fire_time),
        org_id=job.org_id,
        project_id=definition.project_id,
        partition=job.partition,
        revision=job.revision,
        schedule_revision=job.schedule_revision,
        exclusive=takes_overlap_slot(definition.schedule, definition.overlap),
        trace_parent=job.trace_parent,
    )
