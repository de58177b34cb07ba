"""Time zones: which instants a wall-clock reading has.

The rules come from the pinned `tzdata` package and from nowhere else, so that every node and every test computes the
same instants; TZDATA_VERSION is stored beside each projected fire time, and a new version means a new projection.

A *reading* is a naive datetime: what the zone's clock shows. A *gap* is a span of readings that the clock skips (15
minutes in Kathmandu 1986, a whole day in Apia 2011), a *fold* a span that it shows twice; the *turn* is the instant at
which either happens. Nothing here assumes a length, only what zoneinfo guarantees: an offset is below 24 hours.
"""

from __future__ import annotations

import bisect
import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from importlib import import_module
from zoneinfo import ZoneInfo

from libs.common.errors import InvalidArgumentError

# On purpose, for the whole process, and only here: with an empty search path zoneinfo reads the tzdata package alone. A
# host file that is older or newer than the package would make two nodes disagree about when a job fires.
zoneinfo.reset_tzpath(to=())

TZDATA_VERSION: str = import_module("tzdata").IANA_VERSION
"""The IANA version of the rules in use, such as `2026f`."""

ZONE_NAMES = frozenset(zoneinfo.available_timezones() - {"Factory"})
"""Every accepted name. Membership decides, not a try: `ZoneInfo("America")` raises IsADirectoryError, not KeyError."""

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


@cache  # Bounded by ZONE_NAMES: a refused name raises and is not kept.
def find_zone(name: str) -> ZoneInfo:
    """Return the zone of that exact name, or raise UNKNOWN_TIME_ZONE on `time_zone`."""
    if name not in ZONE_NAMES:
        raise InvalidArgumentError.of(
            "time_zone",
            "UNKNOWN_TIME_ZONE",
            f"{name!r} is no IANA time zone of tz database {TZDATA_VERSION}; names are exact, such as 'Europe/Berlin'",
        )
    # Not ZoneInfo(name): its process-wide cache may hold a zone read from a host file before the path was emptied.
    return ZoneInfo.no_cache(name)


def read_clock(zone: ZoneInfo, instant: datetime) -> datetime:
    """Return what the zone's clock shows at the instant."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def offset_at(zone: ZoneInfo, instant: datetime) -> timedelta:
    """Return local time minus UTC at the instant."""
    return read_clock(zone, instant) - instant.replace(tzinfo=None)


def resolve(zone: ZoneInfo, reading: datetime) -> datetime:
    """Return the first instant at which the clock shows the reading (whole seconds), or the end of its gap."""
    instant = _instant(zone, reading, fold=0)
    if read_clock(zone, instant) == reading:
        return instant
    # PEP 495: in a gap fold=1 gives the earlier instant and fold=0 the later one; the turn lies between.
    return _turn_between(zone, _instant(zone, reading, fold=1), instant)


def occurs_twice(zone: ZoneInfo, reading: datetime) -> bool:
    """Tell whether the clock shows the reading at two instants."""
    return _instant(zone, reading, fold=0) < _instant(zone, reading, fold=1)


def latest_reading(zone: ZoneInfo, instant: datetime) -> datetime:
    """Return the latest reading that the clock has shown up to the instant.

    In the second pass of a fold that is the end of the first pass, not what the clock shows now. A rule that fires once
    per reading goes on from here; going on from the clock's reading would find the second pass's times again, and
    resolving those gives instants in the past, fired at once, over and over.
    """
    local = instant.astimezone(zone)
    if not local.fold:
        return local.replace(tzinfo=None)
    second_pass = instant.replace(microsecond=0)
    first_pass = _instant(zone, read_clock(zone, second_pass), fold=0)
    turn = _turn_between(zone, first_pass, second_pass)
    return read_clock(zone, turn - _SECOND) + _SECOND - timedelta.resolution


def next_turn(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """Return the first instant in (start, end] at which the offset changes."""
    for year in range(start.year, end.year + 1):
        for turn in turns(zone, year):
            if start < turn <= end:
                return turn
    return None


@lru_cache(maxsize=4096)
def turns(zone: ZoneInfo, year: int) -> tuple[datetime, ...]:
    """Return the instants of the UTC year at which the zone's offset changes.

    Comparing the days' starts is safe: over all zones and 1990 to 2040 no two turns are closer than 167 hours.
    """
    found = []
    day = datetime(year, 1, 1, tzinfo=UTC)
    offset = offset_at(zone, day)
    while day.year == year:
        following = offset_at(zone, day + _DAY)
        if following != offset:
            found.append(_turn_between(zone, day, day + _DAY))
        day, offset = day + _DAY, following
    return tuple(found)


def _instant(zone: ZoneInfo, reading: datetime, *, fold: int) -> datetime:
    """Return the UTC instant that PEP 495 gives for the reading and fold."""
    return reading.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def _turn_between(zone: ZoneInfo, start: datetime, end: datetime) -> datetime:
    """Return the only instant in (start, end] at which the offset changes; both are whole seconds."""
    before = offset_at(zone, start)
    seconds = bisect.bisect_left(
        range((end - start) // _SECOND), x=True, key=lambda second: offset_at(zone, start + second * _SECOND) != before
    )
    return start + seconds * _SECOND
