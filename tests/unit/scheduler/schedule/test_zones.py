import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
import tzdata

from libs.common.errors import InvalidArgumentError
from services.scheduler.domain.schedule import TZDATA_VERSION, ZONE_NAMES
from services.scheduler.domain.schedule.zones import (
    find_zone,
    latest_reading,
    occurs_twice,
    read_clock,
    resolve,
    turns,
)


def test_only_the_pinned_package_is_read() -> None:
    assert zoneinfo.TZPATH == ()
    assert tzdata.IANA_VERSION == TZDATA_VERSION
    assert len(ZONE_NAMES) > 590


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "US/Eastern", "EST", "Etc/GMT+12"])
def test_a_known_zone_keeps_its_name(name: str) -> None:
    assert find_zone(name).key == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "America",  # A directory: IsADirectoryError from ZoneInfo.
        "leapseconds",  # No zone file: ValueError from ZoneInfo.
        "Factory",
        "localtime",
        "europe/berlin",
        "UTC+3",
        "GMT-5",
        "+02:00",
        "../../etc/passwd",
        "/etc/localtime",
        "Europe/Berlin\n",
        "Europe/Berlin\0",
    ],
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        find_zone(name)

    [violation] = refusal.value.violations
    assert (violation.field, violation.reason) == ("time_zone", "UNKNOWN_TIME_ZONE")


@pytest.mark.parametrize(
    ("name", "reading", "instant"),
    [
        ("America/New_York", "2025-03-09T02:30:59", "2025-03-09T07:00Z"),  # One hour.
        ("Australia/Lord_Howe", "2025-10-05T02:00:00", "2025-10-04T15:30Z"),  # Half an hour.
        ("Asia/Kathmandu", "1986-01-01T00:14:59", "1985-12-31T18:30Z"),  # A quarter.
        ("Pacific/Apia", "2011-12-30T00:00:00", "2011-12-30T10:00Z"),  # The first second of a whole day.
        ("Pacific/Apia", "2011-12-30T23:59:59", "2011-12-30T10:00Z"),
        ("Antarctica/Casey", "2020-03-08T01:30:00", "2020-03-07T14:30Z"),  # A fold of three hours: the first pass.
    ],
)
def test_resolve(name: str, reading: str, instant: str) -> None:
    assert resolve(find_zone(name), datetime.fromisoformat(reading)) == datetime.fromisoformat(instant)


def test_a_fold_occurs_twice_and_a_gap_never() -> None:
    zone = find_zone("America/New_York")

    assert occurs_twice(zone, datetime.fromisoformat("2025-11-02T01:30:00"))
    assert not occurs_twice(zone, datetime.fromisoformat("2025-11-02T02:00:00"))
    assert not occurs_twice(zone, datetime.fromisoformat("2025-03-09T02:30:00"))


def test_the_latest_reading_stands_still_during_the_second_pass() -> None:
    zone = find_zone("America/New_York")
    turn = datetime.fromisoformat("2025-11-02T06:00Z")
    end_of_first_pass = datetime.fromisoformat("2025-11-02T01:59:59.999999")

    assert latest_reading(zone, turn - timedelta.resolution) == end_of_first_pass
    assert latest_reading(zone, turn) == end_of_first_pass
    assert latest_reading(zone, turn + timedelta(minutes=59, microseconds=7)) == end_of_first_pass
    assert latest_reading(zone, turn + timedelta(hours=1)) == datetime.fromisoformat("2025-11-02T02:00")


def test_turns_are_exact() -> None:
    assert turns(find_zone("Europe/London"), 2025) == (
        datetime(2025, 3, 30, 1, tzinfo=UTC),
        datetime(2025, 10, 26, 1, tzinfo=UTC),
    )
    assert turns(find_zone("UTC"), 2025) == ()


def test_a_reading_has_no_trace_of_its_fold() -> None:
    second_pass = datetime.fromisoformat("2025-11-02T06:30Z")

    assert read_clock(find_zone("America/New_York"), second_pass).fold == 0
