from datetime import UTC, datetime, time, timedelta

import pytest

from libs.common.errors import InvalidArgumentError
from services.scheduler.domain.schedule import (
    Cron,
    Daily,
    Monthly,
    OneTimeAt,
    OneTimeLocal,
    Rule,
    Schedule,
    Weekday,
    Weekly,
    check_schedule,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
LOCAL_NOW = NOW.replace(tzinfo=None)
NINE = time(9)


def violations(schedule: Schedule) -> list[tuple[str, str]]:
    with pytest.raises(InvalidArgumentError) as refusal:
        check_schedule(schedule, NOW)
    return [(violation.field, violation.reason) for violation in refusal.value.violations]


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(Daily(NINE)),
        Schedule(Weekly((Weekday.SUN, Weekday.MON), NINE), "Asia/Kolkata"),
        Schedule(Monthly(31, time(0))),
        Schedule(Cron("0 0 29 2 */7"), "Pacific/Apia"),
        Schedule(OneTimeAt(NOW + DAY)),
        Schedule(OneTimeAt(NOW - 60 * SECOND)),
        Schedule(OneTimeAt(datetime(2500, 1, 1, tzinfo=UTC))),
        Schedule(OneTimeLocal(LOCAL_NOW - 60 * SECOND)),
        Schedule(Daily(NINE), start_time=NOW + 300 * 366 * DAY),
        Schedule(Daily(NINE), start_time=NOW + timedelta(hours=21), end_time=NOW + timedelta(hours=21)),
        Schedule(Daily(NINE), jitter=timedelta(hours=1)),
    ],
)
def test_accepts(schedule: Schedule) -> None:
    check_schedule(schedule, NOW)


@pytest.mark.parametrize(
    ("rule", "field", "reason"),
    [
        (Daily(time(9, 0, 1)), "daily.time", "INVALID_TIME"),
        (Daily(time(9, tzinfo=UTC)), "daily.time", "INVALID_TIME"),
        (Weekly((Weekday.MON,), time(9, 0, 1)), "weekly.time", "INVALID_TIME"),
        (Weekly((), NINE), "weekly.days", "INVALID_DAYS"),
        (Weekly((Weekday.MON, Weekday.MON), NINE), "weekly.days", "INVALID_DAYS"),
        (Monthly(0, NINE), "monthly.day", "INVALID_DAY"),
        (Monthly(32, NINE), "monthly.day", "INVALID_DAY"),
        (Monthly(1, time(9, 0, 0, 1)), "monthly.time", "INVALID_TIME"),
        (Cron("0 0 32 * *"), "cron.expression", "INVALID_CRON"),
        (Cron("0 0 30 2 *"), "cron.expression", "NEVER_FIRES"),
        (Cron("0 * 31 2,4,6,9,11 *"), "cron.expression", "NEVER_FIRES"),
        (OneTimeAt(NOW - timedelta(seconds=60, milliseconds=1)), "one_time.instant", "RUN_AT_IN_PAST"),
        (OneTimeAt(datetime.min.replace(tzinfo=UTC)), "one_time.instant", "RUN_AT_IN_PAST"),
        (OneTimeAt(datetime.max.replace(tzinfo=UTC)), "one_time.instant", "NEVER_FIRES"),
        (OneTimeLocal(LOCAL_NOW - 61 * SECOND), "one_time.local", "RUN_AT_IN_PAST"),
        (OneTimeLocal(datetime.fromisoformat("0001-01-01")), "one_time.local", "RUN_AT_IN_PAST"),
        (OneTimeLocal(LOCAL_NOW + timedelta(microseconds=1)), "one_time.local", "INVALID_TIME"),
        (OneTimeLocal(NOW), "one_time.local", "INVALID_TIME"),
    ],
)
def test_refuses_the_rule(rule: Rule, field: str, reason: str) -> None:
    assert violations(Schedule(rule)) == [(field, reason)]


@pytest.mark.parametrize(
    ("schedule", "field", "reason"),
    [
        (Schedule(Daily(NINE), "Europe/Bonn"), "time_zone", "UNKNOWN_TIME_ZONE"),
        (Schedule(Daily(NINE), start_time=NOW + DAY, end_time=NOW), "end_time", "END_BEFORE_START"),
        (Schedule(Daily(NINE), jitter=-SECOND), "jitter", "INVALID_JITTER"),
        (Schedule(Daily(NINE), jitter=timedelta(hours=1, microseconds=1)), "jitter", "INVALID_JITTER"),
        (Schedule(Daily(NINE), end_time=NOW), "end_time", "NEVER_FIRES"),
        (Schedule(Daily(NINE), start_time=NOW, end_time=NOW + SECOND), "end_time", "NEVER_FIRES"),
        (Schedule(OneTimeAt(NOW + DAY), start_time=NOW + 2 * DAY), "start_time", "NEVER_FIRES"),
    ],
)
def test_refuses_the_frame(schedule: Schedule, field: str, reason: str) -> None:
    assert violations(schedule) == [(field, reason)]


def test_reports_every_violation_at_once() -> None:
    schedule = Schedule(
        Weekly((), time(9, 0, 1)), "Nowhere", start_time=NOW, end_time=NOW - SECOND, jitter=timedelta(days=1)
    )

    assert violations(schedule) == [
        ("time_zone", "UNKNOWN_TIME_ZONE"),
        ("weekly.days", "INVALID_DAYS"),
        ("weekly.time", "INVALID_TIME"),
        ("end_time", "END_BEFORE_START"),
        ("jitter", "INVALID_JITTER"),
    ]


def test_a_past_one_time_is_reported_beside_bad_bounds() -> None:
    schedule = Schedule(OneTimeAt(NOW - DAY), start_time=NOW, end_time=NOW - SECOND)

    assert violations(schedule) == [("one_time.instant", "RUN_AT_IN_PAST"), ("end_time", "END_BEFORE_START")]


def test_a_local_time_in_the_past_is_judged_on_its_zones_clock() -> None:
    eight_in_new_york = OneTimeLocal(LOCAL_NOW - timedelta(hours=4))

    check_schedule(Schedule(eight_in_new_york, "America/New_York"), NOW)
    assert violations(Schedule(eight_in_new_york, "Europe/London")) == [("one_time.local", "RUN_AT_IN_PAST")]


@pytest.mark.parametrize("rule", [Daily(NINE), Weekly((Weekday.MON,), NINE), Monthly(1, NINE)])
def test_at_the_end_of_the_calendar_a_rule_is_refused_by_its_own_name(rule: Rule) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        check_schedule(Schedule(rule), datetime(9999, 12, 31, tzinfo=UTC))
    assert [(v.field, v.reason) for v in refusal.value.violations] == [("rule", "NEVER_FIRES")]
