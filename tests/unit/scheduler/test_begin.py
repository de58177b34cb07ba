"""What an execution that somebody wants to begin meets: grant, skip, end, or come back later."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from services.scheduler.domain.begin import (
    MAX_LOSSES,
    BeginDecision,
    End,
    Grant,
    Refuse,
    Skip,
    decide_begin,
    takes_overlap_slot,
)
from services.scheduler.domain.execution import Cause, Execution, ExecutionState, Phase
from services.scheduler.domain.job import CatchUpPolicy, Job, JobState, OnUnknownOutcome, OverlapPolicy
from services.scheduler.domain.schedule import Cron, OneTimeLocal, Schedule
from tests.support.scheduler_values import EVERY_MINUTE, HOUR, NOW, SECOND, a_definition, a_job, an_execution, at, once

JOB = a_job()


def ready(**changes: Any) -> Execution:
    return an_execution(JOB, **changes)


def running(**changes: Any) -> Execution:
    plain = an_execution(
        JOB,
        state=ExecutionState.RUNNING,
        phase=Phase.LEASED,
        wake_time=at(15),
        attempt_number=1,
        fencing_token=1,
        executor_id="x",
    )
    return replace(plain, **changes)


def job(state: JobState = JobState.ACTIVE, **changes: Any) -> Job:
    return replace(JOB, state=state, **changes)


FIRST = ready()
MANUAL = ready(cause=Cause.MANUAL)
RETRY = ready(attempt_number=1, fencing_token=1, phase=Phase.WAITING)


@pytest.mark.parametrize(
    ("execution", "present", "expected"),
    [
        *((FIRST, job(state), decision) for state, decision in {
            JobState.ACTIVE: Grant(),
            JobState.COMPLETED: Grant(),
            JobState.PAUSED: Skip("JOB_PAUSED"),
            JobState.FAILED: Skip("JOB_FAILED"),
            JobState.DELETED: Skip("JOB_DELETED"),
        }.items()),
        *((execution, job(state), decision) for execution in (MANUAL, RETRY) for state, decision in {
            JobState.ACTIVE: Grant(),
            JobState.COMPLETED: Grant(),
            JobState.PAUSED: Grant(),
            JobState.FAILED: Grant(),
            JobState.DELETED: Skip("JOB_DELETED"),
        }.items()),
        (FIRST, None, Skip("JOB_DELETED")),
        (RETRY, None, Skip("JOB_DELETED")),
    ],
)  # fmt: skip
def test_the_jobs_state_at_this_moment_decides(
    execution: Execution, present: Job | None, expected: BeginDecision
) -> None:
    assert decide_begin(execution, present, NOW) == expected


@pytest.mark.parametrize("state", [state for state in ExecutionState if state.is_final])
def test_what_is_final_is_refused(state: ExecutionState) -> None:
    assert decide_begin(ready(state=state, phase=None), job(), NOW) == Refuse("FINAL")
    assert decide_begin(ready(state=state, phase=None), None, NOW) == Refuse("FINAL")


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(5, Grant()), (5.001, Refuse("NOT_READY", at(5.001))), (3600, Refuse("NOT_READY", at(3600)))],
)
def test_too_early_is_told_when_to_come_back(ahead: float, expected: BeginDecision) -> None:
    assert decide_begin(ready(fire_time=at(ahead)), job(), NOW) == expected


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.FAILED])
def test_a_held_job_is_not_decided_before_its_fire(state: JobState) -> None:
    early = ready(fire_time=at(0.25))
    assert decide_begin(early, job(state), NOW) == Refuse("JOB_STATE_UNDECIDED", at(0.25))
    assert isinstance(decide_begin(early, job(state), at(0.25)), Skip)
    assert decide_begin(early, job(JobState.DELETED), NOW) == Skip("JOB_DELETED")


OLD_FIRE = ready(fire_time=at(60))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule_revision": 1}, Grant()),
        # The schedule changed: a fire from before that, or one that both have, still counts.
        ({"schedule_revision": 2, "schedule_time": at(60)}, Grant()),
        ({"schedule_revision": 2, "schedule_time": NOW}, Grant()),
        (
            {
                "schedule_revision": 2,
                "schedule_time": NOW,
                "definition": a_definition(schedule=Schedule(Cron("30 * * * *"))),
            },
            Skip("SCHEDULE_CHANGED"),
        ),
        # A change of anything else is none of the schedule.
        ({"revision": 9, "definition": a_definition(name="new")}, Grant()),
    ],
)
def test_a_fire_of_an_older_schedule_runs_if_the_new_one_has_it(
    changes: dict[str, Any], expected: BeginDecision
) -> None:
    assert decide_begin(OLD_FIRE, job(**changes), at(60)) == expected


def test_a_fire_that_the_new_schedule_lacks_is_not_decided_before_it_comes() -> None:
    hourly = a_definition(schedule=Schedule(Cron("30 * * * *")))
    present = job(schedule_revision=2, schedule_time=NOW, definition=hourly)
    assert decide_begin(OLD_FIRE, present, at(59)) == Refuse("SCHEDULE_UNDECIDED", at(60))
    assert decide_begin(OLD_FIRE, present, at(60)) == Skip("SCHEDULE_CHANGED")


@pytest.mark.parametrize(
    ("late", "window", "expected"),
    [
        (HOUR, HOUR, Grant()),
        (HOUR + SECOND, HOUR, Skip("CATCH_UP_WINDOW")),
        (60 * SECOND, SECOND, Grant()),
        (61 * SECOND, SECOND, Skip("CATCH_UP_WINDOW")),
    ],
)
def test_what_nobody_began_within_the_window_is_skipped(late: Any, window: Any, expected: BeginDecision) -> None:
    present = job(definition=a_definition(catch_up=CatchUpPolicy(window=window)))
    assert decide_begin(FIRST, present, NOW + late) == expected
    assert decide_begin(MANUAL, present, NOW + late) == Grant()
    assert decide_begin(RETRY, present, NOW + late) == Grant()


def test_the_end_of_a_wait_counts_as_the_time_from_which_it_is_late() -> None:
    queued = ready(available_time=at(7200))
    present = job(definition=a_definition(catch_up=CatchUpPolicy(window=HOUR)))
    assert decide_begin(queued, present, at(7300)) == Grant()


FAIL = a_definition(on_unknown_outcome=OnUnknownOutcome.FAIL)


@pytest.mark.parametrize("now", [NOW, at(14.999)])
@pytest.mark.parametrize("state", JobState)
def test_a_lease_that_holds_is_respected(now: datetime, state: JobState) -> None:
    assert decide_begin(running(), job(state), now) == Refuse("LEASED")


@pytest.mark.parametrize(
    ("changes", "present", "expected"),
    [
        ({}, job(), Grant(lost_lease=True)),
        # What was begun goes on, whatever the job does meanwhile.
        ({}, job(JobState.PAUSED), Grant(lost_lease=True)),
        ({}, job(JobState.FAILED), Grant(lost_lease=True)),
        ({}, job(JobState.DELETED), End(ExecutionState.UNKNOWN, "JOB_DELETED")),
        ({}, None, End(ExecutionState.UNKNOWN, "JOB_DELETED")),
        ({}, job(definition=FAIL), End(ExecutionState.UNKNOWN, "EXECUTOR_LOST")),
        ({"cancel_reason": "BY_CALLER"}, job(), End(ExecutionState.CANCELLED, "BY_CALLER")),
        ({"cancel_reason": "BY_CALLER"}, job(definition=FAIL), End(ExecutionState.CANCELLED, "BY_CALLER")),
        ({"loss_count": MAX_LOSSES - 2}, job(), Grant(lost_lease=True)),
        ({"loss_count": MAX_LOSSES - 1}, job(), End(ExecutionState.FAILED, "EXECUTOR_LOST_REPEATEDLY")),
    ],
)
def test_a_lost_lease(changes: dict[str, Any], present: Job | None, expected: BeginDecision) -> None:
    assert decide_begin(running(**changes), present, at(15)) == expected


@pytest.mark.parametrize(
    ("schedule", "overlap", "expected"),
    [
        (EVERY_MINUTE, OverlapPolicy.SKIP, True),
        (EVERY_MINUTE, OverlapPolicy.QUEUE_ONE, True),
        (EVERY_MINUTE, OverlapPolicy.ALLOW, False),
        (once(), OverlapPolicy.SKIP, False),
        (Schedule(OneTimeLocal(NOW.replace(tzinfo=None))), OverlapPolicy.QUEUE_ONE, False),
    ],
)
def test_fires_of_recurring_jobs_exclude_each_other_unless_allowed(
    schedule: Schedule, overlap: OverlapPolicy, expected: bool
) -> None:
    assert takes_overlap_slot(schedule, overlap) is expected
