"""What a user can say about when a job fires, as values.

The values hold what was said and judge nothing: `validate.check_schedule` refuses the impossible ones in one report.
They are hashable, because thousands of jobs share one rule at midnight and the engine remembers answers by rule.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta


class Weekday(enum.IntEnum):
    """A day of the week, numbered as `datetime.weekday()` numbers it; cron's numbers stay inside the cron grammar."""

    MON = 0
    TUE = 1
    WED = 2
    THU = 3
    FRI = 4
    SAT = 5
    SUN = 6


class MonthEnd(enum.Enum):
    """What a monthly rule does in a month that lacks its day."""

    SKIP = "SKIP"
    """The month has no fire, as in cron."""
    LAST_DAY = "LAST_DAY"
    """The fire comes on the month's last day."""


@dataclass(frozen=True, slots=True)
class OneTimeAt:
    """Fires once, at an instant, kept in UTC to the millisecond: the precision in which instants are stored."""

    instant: datetime

    def __post_init__(self) -> None:
        if self.instant.tzinfo is None:
            raise ValueError("an instant needs an offset: a naive one would be read in the host's zone")
        utc = self.instant.astimezone(UTC)
        object.__setattr__(self, "instant", utc.replace(microsecond=utc.microsecond // 1000 * 1000))


@dataclass(frozen=True, slots=True)
class OneTimeLocal:
    """Fires once, when the zone's clock shows `wall` (naive, whole seconds)."""

    wall: datetime


@dataclass(frozen=True, slots=True)
class Daily:
    """Fires every day at `time` (naive, whole minutes)."""

    time: time


@dataclass(frozen=True, slots=True)
class Weekly:
    """Fires on each of the named weekdays at `time`."""

    days: tuple[Weekday, ...]
    """As given, so that a day named twice can be refused instead of swallowed."""
    time: time


@dataclass(frozen=True, slots=True)
class Monthly:
    """Fires on one day of each month, 1 to 31, at `time`."""

    day: int
    time: time
    month_end: MonthEnd = MonthEnd.SKIP


@dataclass(frozen=True, slots=True)
class Cron:
    """Fires where a five-field cron expression (see `grammar`) matches."""

    expression: str


Rule = OneTimeAt | OneTimeLocal | Daily | Weekly | Monthly | Cron


@dataclass(frozen=True, slots=True)
class Schedule:
    """Says when a job fires: one rule on the wall clock of one zone, within optional bounds."""

    rule: Rule
    time_zone: str = "UTC"
    """The IANA name exactly as given; a link behaves as its target and keeps its name."""
    start_time: datetime | None = None
    """No fire before this instant; a fire exactly at it counts."""
    end_time: datetime | None = None
    """No fire after this instant; a fire exactly at it counts."""
    jitter: timedelta = timedelta(0)
    """The largest spread added to a fire time, 0 to 1 hour."""
