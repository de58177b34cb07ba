"""An org's settings: their ranges, and the shortest interval of a schedule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from libs.common.errors import InvalidArgumentError
from services.scheduler.domain.org import OrgSettings, check_interval, check_org_settings, shortest_interval
from services.scheduler.domain.schedule import Cron, Daily, OneTimeAt, Schedule

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
GOOD = OrgSettings("acme", max_jobs=1000, max_stored_bytes=10**9, max_creates_per_minute=10)


def test_good_settings_pass():
    check_org_settings(replace(GOOD, job_failed_callback_url="https://example.com/told", min_interval=timedelta(1)))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_jobs": 0}, "max_jobs"),
        ({"max_jobs": 10_000_001}, "max_jobs"),
        ({"min_interval": timedelta(days=1, seconds=1)}, "min_interval"),
        ({"max_stored_bytes": 0}, "max_stored_bytes"),
        ({"max_creates_per_minute": 0}, "max_creates_per_minute"),
        ({"job_failed_callback_url": "ftp://example.com"}, "job_failed_callback_url"),
    ],
)
def test_settings_out_of_range_are_refused_by_field(change: dict[str, object], field: str):
    with pytest.raises(InvalidArgumentError) as refused:
        check_org_settings(replace(GOOD, **change))
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize(
    ("rule", "shortest"),
    [
        (Cron("* * * * *"), timedelta(minutes=1)),
        (Cron("0,59 * * * *"), timedelta(minutes=1)),
        (Cron("0 9 * * 1"), timedelta(days=7)),
        (Daily(time(9, 0)), timedelta(days=1)),
        (OneTimeAt(NOW + timedelta(hours=1)), None),
    ],
)
def test_the_shortest_interval_is_found_among_the_next_fires(rule: object, shortest: timedelta | None):
    assert shortest_interval(Schedule(rule), NOW) == shortest


def test_a_schedule_that_fires_too_often_is_refused():
    every_minute = Schedule(Cron("* * * * *"))
    (violation,) = check_interval(every_minute, NOW, timedelta(minutes=5))
    assert (violation.field, violation.reason) == ("schedule", "INTERVAL_TOO_SHORT")
    assert not list(check_interval(every_minute, NOW, timedelta(minutes=1)))
    assert not list(check_interval(every_minute, NOW, timedelta(0)))
