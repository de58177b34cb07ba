from datetime import datetime, time

import pytest

from libs.common.errors import InvalidArgumentError
from services.scheduler.domain.schedule import parse_local, parse_time


@pytest.mark.parametrize(("text", "expected"), [("00:00", time(0)), ("09:05", time(9, 5)), ("23:59", time(23, 59))])
def test_parse_time(text: str, expected: time) -> None:
    assert parse_time(text, "daily.time") == expected


@pytest.mark.parametrize(
    "text",
    ["", "9:00", "24:00", "12:60", "12:00:00", "12.00", "1200", " 12:00", "12:00\n", "12:00Z", "-1:00", "٠٩:00"],
)
def test_parse_time_refuses(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        parse_time(text, "daily.time")

    [violation] = refusal.value.violations
    assert (violation.field, violation.reason) == ("daily.time", "INVALID_TIME")


def test_parse_local() -> None:
    assert parse_local("2028-02-29", "23:59") == datetime.fromisoformat("2028-02-29T23:59:00")
    assert parse_local("2028-02-29", "23:59:59") == datetime.fromisoformat("2028-02-29T23:59:59")


@pytest.mark.parametrize(
    ("date", "at", "fields"),
    [
        ("2026-02-29", "12:00", ["one_time.local.date"]),
        ("0000-01-01", "12:00", ["one_time.local.date"]),
        ("2026-W10-1", "12:00", ["one_time.local.date"]),
        ("20260101", "12:00", ["one_time.local.date"]),
        ("2026-1-1", "12:00", ["one_time.local.date"]),
        ("2026-01-01", "23:59:60", ["one_time.local.time"]),
        ("2026-01-01", "12:00:00.5", ["one_time.local.time"]),
        ("2026-01-01", "12:00+02:00", ["one_time.local.time"]),
        ("", "", ["one_time.local.date", "one_time.local.time"]),
    ],
)
def test_parse_local_refuses_each_part(date: str, at: str, fields: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        parse_local(date, at)

    assert [violation.field for violation in refusal.value.violations] == fields
