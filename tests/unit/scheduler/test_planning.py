"""Which fires of a job run and which are skipped: policy by lateness, and backlogs in bounded steps."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from services.scheduler.domain.job import CatchUpMode, CatchUpPolicy
from services.scheduler.domain.planning import MAX_DECISIONS, FireCursor, FirePlan, plan_fires
from services.scheduler.domain.schedule import Cron, Schedule, due_time
from tests.support.scheduler_values import DAY, EVERY_MINUTE, HOUR, MINUTE, NOW, SECOND, at, once

LATEST, ALL, NONE = CatchUpMode.LATEST, CatchUpMode.ALL, CatchUpMode.NONE
EVERY_QUARTER = Schedule(Cron("*/15 * * * *"))


def cursor(
    schedule: Schedule = EVERY_MINUTE,
    start: datetime = NOW,
    mode: CatchUpMode = LATEST,
    window: timedelta = DAY,
    max_fires: int = 100,
) -> FireCursor:
    return FireCursor("job", schedule, CatchUpPolicy(mode, window, max_fires), start)


def reasons(plan: FirePlan) -> list[str]:
    return [fire.skip_reason for fire in plan.fires]


def fire_times(plan: FirePlan) -> list[datetime]:
    return [fire.fire_time for fire in plan.fires]


def test_a_fire_that_is_not_due_is_not_decided() -> None:
    plan = plan_fires(cursor(start=at(60)), NOW, at(59))
    assert plan == FirePlan((), at(60), at(60), more=False)


@pytest.mark.parametrize("mode", CatchUpMode)
def test_a_fire_within_the_horizon_runs_whatever_the_policy(mode: CatchUpMode) -> None:
    plan = plan_fires(cursor(start=at(60), mode=mode), at(58), at(60))
    assert fire_times(plan) == [at(60)]
    assert reasons(plan) == [""]
    assert (plan.next_fire_time, plan.next_due_time, plan.more) == (at(120), at(120), False)


@pytest.mark.parametrize("mode", CatchUpMode)
@pytest.mark.parametrize("late", [0, 1, 60])
def test_a_fire_within_the_grace_runs_whatever_the_policy(mode: CatchUpMode, late: int) -> None:
    plan = plan_fires(cursor(EVERY_QUARTER, mode=mode, window=MINUTE), at(late), at(late))
    assert reasons(plan) == [""]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # Five quarters are past, the last one 5 minutes ago.
        (LATEST, ["COALESCED"] * 4 + [""]),
        (ALL, [""] * 5),
        (NONE, ["MISSED"] * 5),
    ],
)
def test_missed_fires_follow_the_policy(mode: CatchUpMode, expected: list[str]) -> None:
    now = at(3600 + 300)
    assert reasons(plan_fires(cursor(EVERY_QUARTER, mode=mode), now, now)) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (LATEST, ["COALESCED"] * 4 + [""]),
        (ALL, [""] * 5),
        # The last one is not missed: it is within the grace.
        (NONE, ["MISSED"] * 4 + [""]),
    ],
)
def test_the_latest_of_missed_fires_may_be_on_time(mode: CatchUpMode, expected: list[str]) -> None:
    now = at(3600 + 30)
    assert reasons(plan_fires(cursor(EVERY_QUARTER, mode=mode), now, now)) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (LATEST, ["CATCH_UP_WINDOW", "CATCH_UP_WINDOW", "COALESCED", "COALESCED", ""]),
        (ALL, ["CATCH_UP_WINDOW", "CATCH_UP_WINDOW", "", "", ""]),
        (NONE, ["CATCH_UP_WINDOW", "CATCH_UP_WINDOW", "MISSED", "MISSED", "MISSED"]),
    ],
)
def test_fires_older_than_the_window_never_run(mode: CatchUpMode, expected: list[str]) -> None:
    now = at(3600 + 300)
    plan = plan_fires(cursor(EVERY_QUARTER, mode=mode, window=40 * MINUTE), now, now)
    assert reasons(plan) == expected


@pytest.mark.parametrize(("late", "runs"), [(MINUTE + SECOND, True), (HOUR, True), (HOUR + SECOND, False)])
@pytest.mark.parametrize("mode", [LATEST, ALL])
def test_a_one_time_fire_runs_late_within_its_window(mode: CatchUpMode, late: timedelta, runs: bool) -> None:
    plan = plan_fires(cursor(once(), mode=mode, window=HOUR), NOW + late, NOW + late)
    assert reasons(plan) == ["" if runs else "CATCH_UP_WINDOW"]
    assert (plan.next_fire_time, plan.next_due_time, plan.more) == (None, None, False)


def test_all_runs_the_newest_up_to_its_limit() -> None:
    now = at(3600 + 300)
    plan = plan_fires(cursor(EVERY_QUARTER, mode=ALL, max_fires=2), now, now)
    assert reasons(plan) == ["CATCH_UP_LIMIT"] * 3 + ["", ""]


def test_a_fire_ahead_does_not_make_a_missed_one_coalesce() -> None:
    plan = plan_fires(cursor(EVERY_QUARTER), at(899), at(900))
    assert fire_times(plan) == [at(0), at(900)]
    assert reasons(plan) == ["", ""]


@pytest.mark.parametrize("mode", CatchUpMode)
def test_a_long_backlog_is_decided_in_bounded_steps_each_fire_once(mode: CatchUpMode) -> None:
    minutes = 3 * MAX_DECISIONS + 17
    now = at(60 * minutes + 30)
    here = cursor(mode=mode, max_fires=40)
    seen: list[tuple[datetime, str]] = []
    steps = 0
    while True:
        plan = plan_fires(here, now, now)
        assert len(plan.fires) <= MAX_DECISIONS + here.catch_up.max_fires
        seen += [(fire.fire_time, fire.skip_reason) for fire in plan.fires]
        steps += 1
        assert plan.next_fire_time is not None
        here = replace(here, next_fire_time=plan.next_fire_time)
        if not plan.more:
            break
    assert [fire for fire, _ in seen] == [at(60 * minute) for minute in range(minutes + 1)]
    assert here.next_fire_time == at(60 * (minutes + 1))
    assert 3 <= steps <= 4
    ran = [fire for fire, reason in seen if not reason]
    assert len(ran) == {LATEST: 1, ALL: 40, NONE: 1}[mode]
    assert ran == [fire for fire, _ in seen][-len(ran) :]
    assert {reason for _, reason in seen if reason} <= {"CATCH_UP_WINDOW", "COALESCED", "CATCH_UP_LIMIT", "MISSED"}


def test_jitter_delays_the_due_time_and_lateness_counts_from_it() -> None:
    schedule = replace(EVERY_QUARTER, jitter=HOUR)
    due = due_time(schedule, "job", NOW)
    assert NOW < due < at(900)
    assert plan_fires(cursor(schedule), NOW, due - SECOND).fires == ()
    plan = plan_fires(cursor(schedule, mode=NONE), due + 60 * SECOND, due)
    assert [(fire.fire_time, fire.due_time, fire.skip_reason) for fire in plan.fires] == [(NOW, due, "")]
    assert plan.next_due_time == due_time(schedule, "job", at(900))


def test_a_schedule_that_ends_leaves_no_further_fire() -> None:
    plan = plan_fires(cursor(replace(EVERY_MINUTE, end_time=at(60))), at(60), at(3600))
    assert fire_times(plan) == [at(0), at(60)]
    assert (plan.next_fire_time, plan.next_due_time, plan.more) == (None, None, False)


def test_planning_twice_decides_alike() -> None:
    now = at(86_400)
    assert plan_fires(cursor(mode=ALL), now, now) == plan_fires(cursor(mode=ALL), now, now)
