"""The next fire of a schedule: readings put onto the time line of a zone.

Two policies, both what Debian's cron promises:

* FIXED (one-time, daily, weekly, monthly, cron with fixed minute and hour): one fire per reading. A reading in a gap
  fires at the gap's end, one in a fold at its first pass.
* ELAPSED (other cron): a fire at every instant whose reading matches. Skipped minutes are skipped, repeated ones
  repeat.

Two readings that meet at one instant are one fire. `next` always means strictly later, so that feeding a fire back in
never yields it again. Near the ends of datetime's range there are no fires (`EARLIEST`, `LATEST`), and no errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from services.scheduler.domain.schedule.grammar import parse_cron
from services.scheduler.domain.schedule.readings import SEARCH_YEARS, next_reading
from services.scheduler.domain.schedule.rules import (
    Cron,
    Daily,
    Monthly,
    OneTimeAt,
    OneTimeLocal,
    Rule,
    Schedule,
    Weekly,
)
from services.scheduler.domain.schedule.zones import (
    find_zone,
    latest_reading,
    next_turn,
    offset_at,
    read_clock,
    resolve,
)

EARLIEST = datetime(2, 1, 1, tzinfo=UTC)
LATEST = datetime(9998, 1, 1, tzinfo=UTC)
"""A year or more inside datetime's range at each end, so that no offset and no step of a search can leave it."""

ONE_TIME_TOLERANCE = timedelta(seconds=60)
"""How far a new one-time rule may lie in the past: the caller's clock may be behind, or the call slow."""

_INSTANT = timedelta.resolution
_SEARCH_SPAN = timedelta(days=366 * SEARCH_YEARS)
# An offset is below 24 hours, so that two offsets differ by less than two days and a clock moves forward over any two.
_TWO_DAYS = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Match:
    """A fire, and the reading by which the rule named it; the clock shows another one if that lies in a gap."""

    fire_time: datetime
    reading: datetime


def next_fire(schedule: Schedule, after: datetime) -> datetime | None:
    """Return the first fire strictly after the instant, or None when none follows within the bounds and 50 years."""
    if isinstance(schedule.rule, OneTimeAt) and after >= schedule.rule.instant:
        # What most jobs of a tick ask, each with an instant of its own, which nobody else remembers.
        return None
    match = next_match(schedule, after)
    return match.fire_time if match else None


def fires(schedule: Schedule, after: datetime, limit: int) -> list[datetime]:
    """Return the first `limit` fires strictly after the instant, fewer when the schedule ends."""
    found: list[datetime] = []
    while len(found) < limit and (fire := next_fire(schedule, found[-1] if found else after)):
        found.append(fire)
    return found


def contains(schedule: Schedule, instant: datetime) -> bool:
    """Tell whether the schedule fires exactly at the instant."""
    return instant > EARLIEST and next_fire(schedule, instant - _INSTANT) == instant


def first_fire(schedule: Schedule, now: datetime) -> datetime | None:
    """Return the first fire of a schedule that begins to count now.

    A one-time rule up to 60 seconds in the past still fires: it was meant for now.
    """
    if isinstance(schedule.rule, OneTimeAt | OneTimeLocal) and now > EARLIEST + ONE_TIME_TOLERANCE:
        return next_fire(schedule, now - ONE_TIME_TOLERANCE - _INSTANT)
    return next_fire(schedule, now)


def next_match(schedule: Schedule, after: datetime) -> Match | None:
    """Return the first fire strictly after the instant together with the reading that named it."""
    begin = max(after, EARLIEST)
    if schedule.start_time and schedule.start_time > begin:
        begin = schedule.start_time - _INSTANT
    if begin >= LATEST:
        return None
    match = _next_of_rule(schedule.rule, schedule.time_zone, begin)
    if match is None or (schedule.end_time and match.fire_time > schedule.end_time):
        return None
    return match


def _next_of_rule(rule: Rule, time_zone: str, after: datetime) -> Match | None:
    """Return the rule's first match after the instant, asked from the start of its minute.

    Fires come on whole minutes nearly always, so that all who ask within one minute share one remembered answer. Where
    one lies between the minute's start and the instant, the question is asked as it is.
    """
    minute = after.replace(second=0, microsecond=0)
    match = _next_match(rule, time_zone, minute)
    return match if match is None or match.fire_time > after else _next_match(rule, time_zone, after)


@lru_cache(maxsize=16_384)
def _next_match(rule: Rule, time_zone: str, after: datetime) -> Match | None:
    """Return the rule's first match after the instant; remembered, as at midnight thousands of jobs ask the same."""
    zone = find_zone(time_zone)
    if isinstance(rule, OneTimeAt):
        if not after < rule.instant <= LATEST:
            return None
        return Match(rule.instant, read_clock(zone, rule.instant))
    if isinstance(rule, Cron) and parse_cron(rule.expression).follows_elapsed_time:
        match = _next_elapsed(rule, zone, after)
    else:
        match = _next_fixed(rule, zone, after)
    return match if match and match.fire_time <= LATEST else None


def _next_fixed(rule: OneTimeLocal | Daily | Weekly | Monthly | Cron, zone: ZoneInfo, after: datetime) -> Match | None:
    """Return the first match after the instant, where each reading counts once.

    One step is enough: a reading later than all that the clock has shown is reached after the instant, or skipped by a
    gap that ends after it.
    """
    reading = next_reading(rule, latest_reading(zone, after))
    if reading is None or reading.year > LATEST.year:
        return None
    return Match(resolve(zone, reading), reading)


def _next_elapsed(rule: Cron, zone: ZoneInfo, after: datetime) -> Match | None:
    """Return the first instant after the given one at which the clock shows a matching reading.

    Goes from turn to turn, because between turns readings and instants run in step. Where no turn is near, a piece ends
    after three days and the search jumps close to the reading that it has already found: a 29 February 40 years ahead
    must not cost 80 turns.
    """
    start = after + _INSTANT
    while start < LATEST and start - after < _SEARCH_SPAN:
        clock = read_clock(zone, start)
        reading = next_reading(rule, clock - _INSTANT)
        if reading is None or reading.year > LATEST.year:
            return None
        fire_time = (reading - offset_at(zone, start)).replace(tzinfo=UTC)
        far = start + timedelta(days=3)
        end = next_turn(zone, start, far) or far
        if fire_time < end:
            return Match(fire_time, reading)
        # Two days on, the clock is past where it stood at `start`, so that only this reading or a later one can match,
        # and no instant shows it more than a day before its own UTC reading. A nearer turn may bring back readings from
        # before `start`: ask again from there.
        nearby = reading.replace(tzinfo=UTC) - _TWO_DAYS
        start = max(end, nearby) if end - start >= _TWO_DAYS else end
    return None
