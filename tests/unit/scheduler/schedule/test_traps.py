"""The expressions on which croniter alone was measured wrong, slow or too lenient, each with what must come instead."""

from datetime import datetime, timedelta

import pytest
from croniter import croniter

from libs.common.errors import InvalidArgumentError
from services.scheduler.domain.schedule import Cron, Schedule, engine, fires, next_fire, readings, zones
from services.scheduler.domain.schedule.grammar import parse_cron


def local_fires(zone: str, expression: str, after: str, count: int) -> list[str]:
    found = fires(Schedule(Cron(expression), zone), datetime.fromisoformat(after), count)
    return [fire.astimezone(zones.find_zone(zone)).isoformat(timespec="minutes") for fire in found]


def test_r1_fixed_time_in_a_fold_fires_once() -> None:
    assert local_fires("America/New_York", "30 1 * * *", "2025-11-02T04:00Z", 2) == [
        "2025-11-02T01:30-04:00",
        "2025-11-03T01:30-05:00",
    ]


def test_r1_asked_inside_the_second_pass_looks_forward() -> None:
    assert local_fires("America/New_York", "30 1 * * *", "2025-11-02T06:15Z", 1) == ["2025-11-03T01:30-05:00"]


def test_r2_fixed_time_on_a_weekday_in_a_fold_fires_once() -> None:
    assert local_fires("Europe/London", "30 1 * * sun", "2025-10-25T12:00Z", 2) == [
        "2025-10-26T01:30+01:00",
        "2025-11-02T01:30+00:00",
    ]


def test_r3_elapsed_hours_have_no_extra_fire_after_a_gap() -> None:
    assert local_fires("America/New_York", "0 */2 * * *", "2025-03-09T04:30Z", 2) == [
        "2025-03-09T00:00-05:00",
        "2025-03-09T04:00-04:00",
    ]


@pytest.mark.parametrize("hours", ["0-23", "0-22"])
def test_r4_a_full_range_is_as_fixed_as_a_shorter_one(hours: str) -> None:
    assert local_fires("America/New_York", f"30 {hours} * * *", "2025-03-09T06:00Z", 3) == [
        "2025-03-09T01:30-05:00",
        "2025-03-09T03:00-04:00",
        "2025-03-09T03:30-04:00",
    ]


def test_r5_both_passes_of_a_half_hour_fold() -> None:
    assert local_fires("Australia/Lord_Howe", "*/20 1 * * *", "2025-04-05T14:30Z", 3) == [
        "2025-04-06T01:40+11:00",
        "2025-04-06T01:40+10:30",
        "2025-04-07T01:00+10:30",
    ]


def test_a_rare_rule_asked_in_the_first_pass_still_finds_the_second() -> None:
    assert local_fires("Australia/Lord_Howe", "*/10 1 6 4 *", "2025-04-05T14:51Z", 4) == [
        "2025-04-06T01:30+10:30",
        "2025-04-06T01:40+10:30",
        "2025-04-06T01:50+10:30",
        "2026-04-06T01:00+10:30",
    ]


def test_elapsed_minutes_in_a_half_hour_gap_are_only_those_skipped() -> None:
    assert local_fires("Australia/Lord_Howe", "*/10 2 * * *", "2025-10-04T15:00Z", 3) == [
        "2025-10-05T02:30+11:00",
        "2025-10-05T02:40+11:00",
        "2025-10-05T02:50+11:00",
    ]


def test_r7_a_day_field_that_begins_with_a_star_restricts_the_other() -> None:
    assert local_fires("UTC", "0 0 */2 * 1", "2026-05-30T00:00Z", 3) == [
        "2026-06-01T00:00+00:00",
        "2026-06-15T00:00+00:00",
        "2026-06-29T00:00+00:00",
    ]


@pytest.mark.parametrize("expression", ["0 0 13 * 1,*", "0 0 1-31 * 5", "0 0 13 * 0-6"])
def test_r7_alternatives_of_which_one_is_every_day(expression: str) -> None:
    assert local_fires("UTC", expression, "2026-06-01T12:00Z", 2) == [
        "2026-06-02T00:00+00:00",
        "2026-06-03T00:00+00:00",
    ]


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 * 1-1 *",  # R8
        "0 0 * * 2-2",
        "1-1 * * * *",
        "R R * * *",  # R9
        "0 0 * * * 30",  # R10
        "0 22-2 * * *",
        "0 0 * * fri-mon",
        "5/15 * * * *",
        "0 0 ? * *",
        "0 0 15W * *",
        "0 0 * * L5",
        "0 0 * * *\n",
    ],
)
def test_r8_to_r10_what_croniter_takes_is_refused(expression: str) -> None:
    croniter(expression)

    with pytest.raises(InvalidArgumentError):
        parse_cron(expression)


@pytest.mark.parametrize("expression", ["0 0 13 * 1,*", "*/15 0-23 1-31 jan-dec mon-fri", "59 23 */40 2 7", "@hourly"])
def test_croniter_is_left_with_values_and_stars(expression: str) -> None:
    columns = readings._compile(expression).expressions

    assert len(columns) == 5
    assert all(set(column) <= set("0123456789,") or column == "*" for column in columns)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the expressions of croniter's searches; the memo is emptied, so that an earlier test saves none."""
    made: list[str] = []
    search = readings._next_cron

    def counted(expression: str, after: datetime) -> datetime | None:
        made.append(expression)
        return search(expression, after)

    monkeypatch.setattr(readings, "_next_cron", counted)
    engine._next_match.cache_clear()
    return made


@pytest.mark.parametrize(
    ("zone", "expression", "after", "expected", "most_searches"),
    [
        ("Pacific/Apia", "* * 30 * *", "2011-12-29T15:43:05Z", "2012-01-29T10:00Z", 3),  # R6: 6 s in croniter.
        ("Pacific/Apia", "0-59 0-23 30 * *", "2011-12-29T15:43:05Z", "2011-12-30T10:00Z", 1),
        ("America/New_York", "* */2 29 2 */7", "2088-03-01T12:00Z", "2128-02-29T05:00Z", 2),
        ("UTC", "0 0 29 2 */7", "2088-03-01T00:00Z", "2128-02-29T00:00Z", 1),
        ("Pacific/Kwajalein", "0-59 0-23 * * *", "1969-09-30T13:30Z", "1969-10-01T12:00Z", 1),  # A fold of 23 hours.
    ],
)
def test_no_search_walks_minutes_or_turns(
    *, searches: list[str], zone: str, expression: str, after: str, expected: str, most_searches: int
) -> None:
    fire = next_fire(Schedule(Cron(expression), zone), datetime.fromisoformat(after))

    assert fire == datetime.fromisoformat(expected)
    assert len(searches) <= most_searches


def test_jobs_with_the_same_rule_share_one_search(searches: list[str]) -> None:
    midnight = datetime.fromisoformat("2026-06-01T00:00Z")

    assert {next_fire(Schedule(Cron("0 0 * * *"), "Asia/Kolkata"), midnight) for _ in range(100)} == {
        midnight + timedelta(hours=18, minutes=30)
    }
    assert len(searches) == 1


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "*/5 * 31 2,4,6,9,11 *", "0 0 30 2 */7"])
def test_a_rule_that_never_fires_gives_up_at_once(searches: list[str], expression: str) -> None:
    assert next_fire(Schedule(Cron(expression), "Europe/Berlin"), datetime.fromisoformat("2026-01-01T00:00Z")) is None
    assert len(searches) == 1
