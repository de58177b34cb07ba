from datetime import UTC, datetime, time, timedelta, timezone

import pytest

from libs.common.errors import InvalidArgumentError
from services.scheduler.domain.schedule import (
    Cron,
    Daily,
    MonthEnd,
    Monthly,
    OneTimeAt,
    OneTimeLocal,
    Schedule,
    contains,
    fires,
    first_fire,
    next_fire,
    parse_local,
)
from services.scheduler.domain.schedule.engine import EARLIEST, LATEST

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
DAILY_AT_NOON = Daily(time(12))


def test_next_is_strictly_later() -> None:
    schedule = Schedule(DAILY_AT_NOON)

    assert next_fire(schedule, NOON - timedelta.resolution) == NOON
    assert next_fire(schedule, NOON) == NOON + DAY


def test_contains_only_the_exact_instant() -> None:
    schedule = Schedule(DAILY_AT_NOON)

    assert contains(schedule, NOON)
    assert not contains(schedule, NOON + timedelta.resolution)
    assert not contains(schedule, NOON - SECOND)


def test_both_bounds_are_inclusive() -> None:
    schedule = Schedule(DAILY_AT_NOON, start_time=NOON, end_time=NOON + 2 * DAY)

    assert fires(schedule, NOON - 30 * DAY, 10) == [NOON, NOON + DAY, NOON + 2 * DAY]


def test_bounds_a_moment_tighter_exclude() -> None:
    schedule = Schedule(
        DAILY_AT_NOON, start_time=NOON + timedelta.resolution, end_time=NOON + 2 * DAY - timedelta.resolution
    )

    assert fires(schedule, NOON - 30 * DAY, 10) == [NOON + DAY]


def test_bounds_are_compared_with_the_instant_after_the_gap() -> None:
    gap_end = datetime(2026, 3, 29, 1, tzinfo=UTC)  # 02:00 becomes 03:00 in Berlin.
    half_past_two = Daily(time(2, 30))

    assert next_fire(Schedule(half_past_two, "Europe/Berlin", start_time=gap_end), gap_end - DAY) == gap_end
    assert next_fire(Schedule(half_past_two, "Europe/Berlin", end_time=gap_end - SECOND), gap_end - SECOND) is None


def test_a_start_beyond_the_search_span_is_where_the_search_begins() -> None:
    schedule = Schedule(Cron("0 0 29 2 *"), start_time=datetime(2200, 1, 1, tzinfo=UTC))

    assert next_fire(schedule, NOON) == datetime(2204, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Monthly(31, time(0)), ["01-31", "03-31", "05-31"]),
        (Monthly(31, time(0), MonthEnd.LAST_DAY), ["01-31", "02-28", "03-31"]),
        (Monthly(30, time(0), MonthEnd.LAST_DAY), ["01-30", "02-28", "03-30"]),
        (Monthly(29, time(0)), ["01-29", "03-29", "04-29"]),
    ],
)
def test_months_that_lack_the_day(rule: Monthly, expected: list[str]) -> None:
    found = fires(Schedule(rule), datetime(2027, 1, 1, 12, tzinfo=UTC), 3)

    assert [f"{fire:%m-%d}" for fire in found] == expected


def test_one_time_instant_is_kept_to_the_millisecond_in_utc() -> None:
    rule = OneTimeAt(datetime(2026, 6, 1, 14, 0, 0, 123_999, timezone(timedelta(hours=2))))

    assert rule.instant == NOON + timedelta(milliseconds=123)
    assert rule.instant.tzinfo is UTC
    assert fires(Schedule(rule), NOON, 5) == [rule.instant]


def test_a_naive_instant_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="offset"):
        OneTimeAt(NOON.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("date", "at", "expected"),
    [
        ("2026-06-01", "09:00:07", "2026-06-01T07:00:07Z"),
        ("2026-03-29", "02:30", "2026-03-29T01:00:00Z"),  # In the gap: its end.
        ("2026-10-25", "02:30", "2026-10-25T00:30:00Z"),  # In the fold: the first pass.
    ],
)
def test_one_time_local_resolves_as_a_fixed_time(date: str, at: str, expected: str) -> None:
    schedule = Schedule(OneTimeLocal(parse_local(date, at)), "Europe/Berlin")

    assert fires(schedule, NOON - 365 * DAY, 5) == [datetime.fromisoformat(expected)]


@pytest.mark.parametrize("rule", [OneTimeAt(NOON), OneTimeLocal(NOON.replace(tzinfo=None))])
def test_a_new_one_time_rule_may_be_a_minute_late(rule: OneTimeAt | OneTimeLocal) -> None:
    schedule = Schedule(rule)

    assert first_fire(schedule, NOON - DAY) == NOON
    assert first_fire(schedule, NOON + 60 * SECOND) == NOON
    assert first_fire(schedule, NOON + 60 * SECOND + timedelta.resolution) is None
    assert next_fire(schedule, NOON) is None


def test_a_new_recurring_rule_does_not_look_back() -> None:
    assert first_fire(Schedule(DAILY_AT_NOON), NOON) == NOON + DAY


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="Mars/Olympus"):
        next_fire(Schedule(DAILY_AT_NOON, "Mars/Olympus"), NOON)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12", "America/New_York"])
@pytest.mark.parametrize(
    "rule",
    [
        DAILY_AT_NOON,
        Monthly(31, time(23, 59)),
        Cron("59 23 31 12 *"),
        Cron("* * * * *"),
        Cron("* * 29 2 */7"),
        OneTimeAt(datetime.max.replace(tzinfo=UTC)),
        OneTimeAt(datetime.min.replace(tzinfo=UTC)),
        OneTimeLocal(parse_local("9999-12-31", "23:59:59")),
        OneTimeLocal(parse_local("0001-01-01", "00:00")),
    ],
)
def test_the_ends_of_the_calendar_have_no_fires_and_no_errors(
    rule: Daily | Monthly | Cron | OneTimeAt | OneTimeLocal, zone: str
) -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    schedule = Schedule(rule, zone)

    assert next_fire(schedule, last) is None
    assert next_fire(schedule, LATEST) is None
    assert next_fire(schedule, LATEST - timedelta.resolution) in {None, LATEST}
    assert next_fire(Schedule(rule, zone, start_time=last), first) is None
    assert next_fire(schedule, first) == next_fire(schedule, EARLIEST)
    assert not contains(schedule, first)
    assert not contains(schedule, last)
    assert first_fire(schedule, first) == next_fire(schedule, EARLIEST)
