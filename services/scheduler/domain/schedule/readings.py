"""The next wall-clock reading that a rule names, on a clock that never changes: no zone, no gap, no fold.

Daily, weekly, monthly and one-time rules are plain calendar arithmetic, and so is cron whose next match is not years
away. What is left goes through croniter, and only in the way that agrees with an independent count: on naive time, with
nothing but values and `*` left in the expression. Its own zone handling loses and repeats fires around daylight
saving and can take seconds for one answer.
"""

from __future__ import annotations

import calendar
import copy
from bisect import bisect_left
from datetime import date, datetime, time, timedelta
from functools import lru_cache

from croniter import croniter

from services.scheduler.domain.schedule.grammar import CronFields, parse_cron
from services.scheduler.domain.schedule.rules import Cron, Daily, MonthEnd, Monthly, OneTimeLocal, Weekly

SEARCH_YEARS = 50
"""How far a cron search looks before it says never: 29 February on one weekday can need 40 (2088 to 2128)."""

SOON = 400
"""Days and months that are looked at one by one before a search begins: a year of days, or ten years of one month."""

_DAY = timedelta(days=1)
_MIDNIGHT = time(0, 0)
_MINUTE = timedelta(minutes=1)


def next_reading(rule: OneTimeLocal | Daily | Weekly | Monthly | Cron, after: datetime) -> datetime | None:
    """Return the first reading strictly after `after` that the rule names, or None when there is none."""
    match rule:
        case OneTimeLocal(wall):
            return wall if wall > after else None
        case Daily(at):
            return _next_on_days(range(7), at, after)
        case Weekly(days, at):
            return _next_on_days(days, at, after)
        case Monthly():
            return _next_monthly(rule, after)
        case Cron(expression):
            return _next_cron(expression, after)


def _next_on_days(days: range | tuple[int, ...], at: time, after: datetime) -> datetime | None:
    """Return the next reading at that time on one of the weekdays."""
    candidate = datetime.combine(after, at)
    for _ in range(8):  # Today's time may have passed, and the only day may be today's.
        if candidate > after and candidate.weekday() in days:
            return candidate
        candidate += _DAY
    return None


def _next_monthly(rule: Monthly, after: datetime) -> datetime | None:
    """Return the next reading on the rule's day of a month, or on the month's last day where the rule says so."""
    year, month = after.year, after.month
    for _ in range(3):  # This month's may have passed and the next may lack the day; no two neighbours lack it.
        last_day = calendar.monthrange(year, month)[1]
        if rule.day <= last_day or rule.month_end is MonthEnd.LAST_DAY:
            candidate = datetime.combine(date(year, month, min(rule.day, last_day)), rule.time)
            if candidate > after:
                return candidate
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return None


def _next_cron(expression: str, after: datetime) -> datetime | None:
    soon = _next_soon(parse_cron(expression), after)
    return soon if soon is not None else _search(expression, after)


def _search(expression: str, after: datetime) -> datetime | None:
    # A copy, because croniter keeps its position in itself and the parsed one is shared; the parse is what costs.
    search = copy.copy(_compile(expression))
    # Whole minutes, because croniter counts in floats, which far in the future round microseconds up to a minute.
    start = after.replace(second=0, microsecond=0)
    try:
        return search.get_next(datetime, start_time=start)
    except (ValueError, OverflowError):
        # The expression is known to be sound, so this is "nothing within SEARCH_YEARS" or a search past the year 9999.
        return None


def _next_soon(fields: CronFields, after: datetime) -> datetime | None:
    """Return the next reading if a look at each day and month to come finds it soon, or None.

    Nearly all are found so, in a tenth of a search's time, which is felt where thousands of jobs are created at once.
    """
    start = after.replace(second=0, microsecond=0) + _MINUTE
    day, first = start.date(), start.time()
    for _ in range(SOON):
        if day.year == date.max.year:
            return None
        if day.month not in fields.months:
            day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        else:
            at = _first_time(fields, first) if _matches_day(fields, day) else None
            if at is not None:
                return datetime.combine(day, at)
            day += _DAY
        first = _MIDNIGHT  # Of the first day only a part is left.
    return None


def _matches_day(fields: CronFields, day: date) -> bool:
    by_date, by_weekday = day.day in fields.days, day.isoweekday() % 7 in fields.weekdays
    return by_date or by_weekday if fields.either_day else by_date and by_weekday


def _first_time(fields: CronFields, first: time) -> time | None:
    """Return the first of a day's times that is not before `first`."""
    for hour in fields.hours[bisect_left(fields.hours, first.hour) :]:
        minutes = fields.minutes[bisect_left(fields.minutes, first.minute) if hour == first.hour else 0 :]
        if minutes:
            return time(hour, minutes[0])
    return None


@lru_cache(maxsize=4096)
def _compile(expression: str) -> croniter:
    """Return croniter's form of the expression, rewritten so that croniter has nothing left to interpret.

    Handed the user's text it would turn `0-23` into `*` and decide by its own rules when the two day fields are
    alternatives; `1,*` as a weekday is one text on which it and Vixie cron differ.
    """
    fields = parse_cron(expression)
    every_day = len(fields.days) == 31
    every_weekday = len(fields.weekdays) == 7
    if fields.either_day and (every_day or every_weekday):
        every_day = every_weekday = True
    columns = (
        _column(fields.minutes, full=len(fields.minutes) == 60),
        _column(fields.hours, full=len(fields.hours) == 24),
        _column(fields.days, full=every_day),
        _column(fields.months, full=len(fields.months) == 12),
        _column(fields.weekdays, full=every_weekday),
    )
    return croniter(
        " ".join(columns),
        start_time=0,  # Else croniter asks the host's clock.
        day_or=fields.either_day,
        max_years_between_matches=SEARCH_YEARS,
    )


def _column(values: tuple[int, ...], *, full: bool) -> str:
    return "*" if full else ",".join(map(str, values))
