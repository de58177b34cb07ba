"""The next fires as people read them: local and UTC, with the reason where one is not at the rule's plain reading.

Shown in every create and update reply, it settles arguments about daylight saving before they begin.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from services.scheduler.domain.schedule.engine import Match, next_match
from services.scheduler.domain.schedule.rules import Monthly, OneTimeAt, Rule, Schedule
from services.scheduler.domain.schedule.zones import find_zone, occurs_twice, offset_at, read_clock


class Adjustment(enum.Enum):
    """Why a fire is not where, or not as often as, the rule's plain reading puts it."""

    GAP = "GAP"
    """The named reading does not exist that day; the fire comes right after the gap."""
    FOLD = "FOLD"
    """The clock shows the reading twice around this fire."""
    MONTH_END = "MONTH_END"
    """The month lacks the named day; the fire comes on its last day."""


@dataclass(frozen=True, slots=True)
class PreviewedFire:
    """One future fire, shown before it happens."""

    fire_time: datetime
    """The instant, UTC."""
    local: datetime
    """The same instant on the zone's clock, with a plain offset. With a ZoneInfo it would, by PEP 495, not even equal
    `fire_time` inside a fold."""
    adjustments: frozenset[Adjustment]
    """Empty for most."""


def preview(schedule: Schedule, after: datetime, count: int) -> list[PreviewedFire]:
    """Return the first `count` fires strictly after the instant, fewer when the schedule ends."""
    zone = find_zone(schedule.time_zone)
    shown: list[PreviewedFire] = []
    while len(shown) < count and (match := next_match(schedule, shown[-1].fire_time if shown else after)):
        local = match.fire_time.astimezone(timezone(offset_at(zone, match.fire_time)))
        shown.append(PreviewedFire(match.fire_time, local, _adjustments(schedule.rule, match, zone)))
    return shown


def _adjustments(rule: Rule, match: Match, zone: ZoneInfo) -> frozenset[Adjustment]:
    if isinstance(rule, OneTimeAt):
        return frozenset()  # An instant has no second reading.
    found = set()
    if read_clock(zone, match.fire_time) != match.reading:
        found.add(Adjustment.GAP)
    elif occurs_twice(zone, match.reading):
        found.add(Adjustment.FOLD)
    if isinstance(rule, Monthly) and match.reading.day != rule.day:
        found.add(Adjustment.MONTH_END)
    return frozenset(found)
