"""Decides what happens to an execution that an executor wants to begin: grant, skip, end, or come back later.

The job is read at this moment, so that an edit of a fired but not begun execution uses the new definition, and a pause
or a deletion holds whatever the stream still carries. Overlap is not decided here: the database's unique slot does
that when the grant is written (see the execution store).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from libs.common.value_type import value_type
from services.scheduler.domain.execution import Cause, Execution, ExecutionState
from services.scheduler.domain.job import Job, JobState, OnUnknownOutcome, OverlapPolicy
from services.scheduler.domain.planning import MISFIRE_GRACE
from services.scheduler.domain.schedule import OneTimeAt, OneTimeLocal, Schedule, contains

MAX_EARLY = timedelta(seconds=5)
"""How long before its time an execution may be begun; the executor waits for the rest."""

MAX_LOSSES = 5
"""Leases of one execution that may run out before it ends as FAILED: a poison execution kills no sixth executor."""


@value_type
class Grant:
    """It may begin. `lost_lease`: the lease before ran out, which goes on record as a lost attempt."""

    lost_lease: bool = False


@value_type
class Skip:
    """It will never run, for this reason."""

    reason: str


@value_type
class End:
    """Its lease ran out, and it ends in this state."""

    state: ExecutionState
    reason: str


@value_type
class Refuse:
    """Not now: somebody else has it, it is final, or it is too early (`retry_time`)."""

    reason: str
    retry_time: datetime | None = None


BeginDecision = Grant | Skip | End | Refuse


def decide_begin(execution: Execution, job: Job | None, now: datetime) -> BeginDecision:
    """Decide the beginning of an execution of a job at `now`; a job of None was purged."""
    if execution.state.is_final:
        return Refuse("FINAL")
    if execution.state is ExecutionState.RUNNING:
        return _decide_lost_lease(execution, job, now)
    if execution.available_time is not None and execution.available_time - now > MAX_EARLY:
        return Refuse("NOT_READY", execution.available_time)
    return _decide_ready(execution, job, now)


def _decide_ready(execution: Execution, job: Job | None, now: datetime) -> BeginDecision:
    if execution.cancel_reason:
        # Asked for while it ran, and the report of that attempt put it back before it could know.
        return Skip(execution.cancel_reason)
    reason = _hold_reason(execution, job)
    if reason and reason != "JOB_DELETED" and execution.fire_time > now:
        # The job may be resumed before its fire comes; what is ended now could not run then.
        return Refuse("JOB_STATE_UNDECIDED", execution.fire_time)
    if reason:
        return Skip(reason)
    if job is None or execution.attempt_number > 0 or execution.cause is not Cause.SCHEDULE:
        return Grant()
    if not _schedule_still_fires(execution, job):
        # As with a job that is held: the schedule may be changed back before.
        early = execution.fire_time > now
        return Refuse("SCHEDULE_UNDECIDED", execution.fire_time) if early else Skip("SCHEDULE_CHANGED")
    late = now - (execution.available_time or execution.due_time)
    if late > max(job.definition.catch_up.window, MISFIRE_GRACE):
        return Skip("CATCH_UP_WINDOW")
    return Grant()


def _hold_reason(execution: Execution, job: Job | None) -> str:
    """Return why the job's state keeps a READY execution from running, or nothing."""
    if job is None or job.state is JobState.DELETED:
        return "JOB_DELETED"
    if execution.attempt_number > 0 or execution.cause is not Cause.SCHEDULE:
        return ""
    if job.state is JobState.PAUSED:
        return "JOB_PAUSED"
    if job.state is JobState.FAILED:
        return "JOB_FAILED"
    return ""


def _schedule_still_fires(execution: Execution, job: Job) -> bool:
    """Whether the fire belongs to the job's schedule: of its revision, from before the change, or matched by both."""
    if execution.schedule_revision >= job.schedule_revision:
        return True
    if job.schedule_time is not None and execution.fire_time <= job.schedule_time:
        return True
    return contains(job.definition.schedule, execution.fire_time)


def _decide_lost_lease(execution: Execution, job: Job | None, now: datetime) -> BeginDecision:
    if execution.wake_time is not None and execution.wake_time > now:
        return Refuse("LEASED")
    if execution.cancel_reason:
        return End(ExecutionState.CANCELLED, execution.cancel_reason)
    if job is None or job.state is JobState.DELETED:
        return End(ExecutionState.UNKNOWN, "JOB_DELETED")
    if job.definition.on_unknown_outcome is OnUnknownOutcome.FAIL:
        return End(ExecutionState.UNKNOWN, "EXECUTOR_LOST")
    if execution.loss_count + 1 >= MAX_LOSSES:
        return End(ExecutionState.FAILED, "EXECUTOR_LOST_REPEATEDLY")
    return Grant(lost_lease=True)


def takes_overlap_slot(schedule: Schedule, overlap: OverlapPolicy) -> bool:
    """Whether a job's fires exclude each other: those of recurring jobs that do not allow overlap."""
    return overlap is not OverlapPolicy.ALLOW and not is_one_time(schedule)


def is_one_time(schedule: Schedule) -> bool:
    """Whether a schedule fires once."""
    return isinstance(schedule.rule, OneTimeAt | OneTimeLocal)
