from datetime import datetime, time

from services.scheduler.domain.schedule import (
    Adjustment,
    Cron,
    Daily,
    MonthEnd,
    Monthly,
    OneTimeAt,
    OneTimeLocal,
    Rule,
    Schedule,
    preview,
)

GAP, FOLD, MONTH_END = Adjustment.GAP, Adjustment.FOLD, Adjustment.MONTH_END


def shown(rule: Rule, zone: str, after: str, count: int) -> list[tuple[str, set[Adjustment]]]:
    found = preview(Schedule(rule, zone), datetime.fromisoformat(after), count)
    assert all(fire.local == fire.fire_time for fire in found)
    return [(fire.local.isoformat(timespec="minutes"), set(fire.adjustments)) for fire in found]


def test_plain_fires_show_the_offset_of_their_day() -> None:
    assert shown(Daily(time(9)), "Europe/Berlin", "2026-03-28T00:00Z", 2) == [
        ("2026-03-28T09:00+01:00", set()),
        ("2026-03-29T09:00+02:00", set()),
    ]


def test_a_reading_in_a_gap() -> None:
    assert shown(Daily(time(2, 30)), "Europe/Berlin", "2026-03-28T12:00Z", 2) == [
        ("2026-03-29T03:00+02:00", {GAP}),
        ("2026-03-30T02:30+02:00", set()),
    ]


def test_several_readings_in_one_gap_are_one_fire() -> None:
    assert shown(Cron("0,30 2-3 * * *"), "Europe/Berlin", "2026-03-28T12:00Z", 2) == [
        ("2026-03-29T03:00+02:00", {GAP}),
        ("2026-03-29T03:30+02:00", set()),
    ]


def test_a_fixed_reading_in_a_fold_is_shown_once() -> None:
    assert shown(Daily(time(2, 30)), "Europe/Berlin", "2026-10-24T12:00Z", 2) == [
        ("2026-10-25T02:30+02:00", {FOLD}),
        ("2026-10-26T02:30+01:00", set()),
    ]


def test_an_elapsed_reading_in_a_fold_is_shown_twice() -> None:
    assert shown(Cron("30 * * * *"), "Europe/Berlin", "2026-10-25T00:00Z", 3) == [
        ("2026-10-25T02:30+02:00", {FOLD}),
        ("2026-10-25T02:30+01:00", {FOLD}),
        ("2026-10-25T03:30+01:00", set()),
    ]


def test_a_month_without_the_day() -> None:
    assert shown(Monthly(31, time(9), MonthEnd.LAST_DAY), "UTC", "2026-04-01T00:00Z", 2) == [
        ("2026-04-30T09:00+00:00", {MONTH_END}),
        ("2026-05-31T09:00+00:00", set()),
    ]


def test_a_day_that_a_zone_skipped_is_a_gap_and_no_month_end() -> None:
    assert shown(Monthly(30, time(9), MonthEnd.LAST_DAY), "Pacific/Apia", "2011-12-01T00:00Z", 1) == [
        ("2011-12-31T00:00+14:00", {GAP})
    ]


def test_a_last_day_in_a_gap_has_both_reasons() -> None:
    assert shown(Monthly(31, time(0, 30), MonthEnd.LAST_DAY), "Africa/Cairo", "2027-04-01T00:00Z", 1) == [
        ("2027-04-30T01:00+03:00", {GAP, MONTH_END})
    ]


def test_an_instant_needs_no_explanation() -> None:
    rule = OneTimeAt(datetime.fromisoformat("2026-10-25T00:30Z"))

    assert shown(rule, "Europe/Berlin", "2026-10-01T00:00Z", 5) == [("2026-10-25T02:30+02:00", set())]


def test_a_one_time_reading_in_a_fold() -> None:
    rule = OneTimeLocal(datetime.fromisoformat("2026-10-25T02:30"))

    assert shown(rule, "Europe/Berlin", "2026-10-01T00:00Z", 5) == [("2026-10-25T02:30+02:00", {FOLD})]
