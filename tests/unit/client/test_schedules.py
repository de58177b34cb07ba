from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from google.protobuf import json_format

from libs.client import at, bounded, cron, daily, monthly, new_job, weekly

BERLIN = "Europe/Berlin"


def said(message: object) -> dict[str, object]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)  # type: ignore[arg-type]


def test_rules() -> None:
    assert said(daily("09:00", BERLIN)) == {"daily": {"time": "09:00"}, "time_zone": BERLIN}
    assert said(weekly(["mon", "FRI"], "09:00")) == {
        "weekly": {"days": ["WEEKDAY_MON", "WEEKDAY_FRI"], "time": "09:00"},
        "time_zone": "UTC",
    }
    assert said(monthly(31, "09:00", last_day=True)) == {
        "monthly": {"day": 31, "time": "09:00", "month_end": "MONTH_END_LAST_DAY"},
        "time_zone": "UTC",
    }
    assert said(cron("*/5 * * * *")) == {"cron": {"expression": "*/5 * * * *"}, "time_zone": "UTC"}


def test_one_time_is_an_instant_or_a_wall_clock() -> None:
    aware = datetime(2026, 12, 1, 9, tzinfo=ZoneInfo(BERLIN))
    assert said(at(aware)) == {"one_time": {"instant": "2026-12-01T08:00:00Z"}}
    assert said(at(datetime(2026, 12, 1, 9), BERLIN)) == {  # noqa: DTZ001 - a wall clock
        "one_time": {"local": {"date": "2026-12-01", "time": "09:00:00"}},
        "time_zone": BERLIN,
    }


def test_ambiguous_moments_are_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        at(datetime(2026, 12, 1, 9))  # noqa: DTZ001
    with pytest.raises(ValueError, match="aware"):
        at(datetime(2026, 12, 1, 9, tzinfo=UTC), BERLIN)
    with pytest.raises(ValueError, match="no zone"):
        bounded(daily("09:00"), start=datetime(2026, 12, 1, 9))  # noqa: DTZ001


def test_unknown_weekday_is_refused() -> None:
    with pytest.raises(ValueError, match="WEEKDAY_FUNDAY"):
        weekly(["funday"], "09:00")


def test_bounds_leave_the_given_schedule_alone() -> None:
    plain = daily("09:00")
    changed = bounded(plain, end=datetime(2027, 1, 1, tzinfo=UTC), jitter=timedelta(seconds=30))
    assert said(changed) == {**said(plain), "end_time": "2027-01-01T00:00:00Z", "jitter": "30s"}
    assert said(plain) == {"daily": {"time": "09:00"}, "time_zone": "UTC"}


def test_job_marks_secret_headers() -> None:
    job = new_job(
        "n",
        prompt="p",
        url="https://x",
        schedule=daily("09:00"),
        headers={"A": "1"},
        secret_headers={"X-Api-Key": "s"},
        labels={"team": "ops"},
    )
    assert said(job.target) == {
        "url": "https://x",
        "prompt": "p",
        "headers": [{"name": "A", "value": "1"}, {"name": "X-Api-Key", "value": "s", "sensitive": True}],
    }
    assert dict(job.labels) == {"team": "ops"}
