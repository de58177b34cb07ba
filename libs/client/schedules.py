"""Constructors for schedules, in the words in which people say them.

The rule is kept as the wall clock of its zone says it: `daily("09:00", "Europe/Berlin")` stays at nine in winter and in
summer. Whether the values make sense is the server's to say; `client.jobs.preview` asks it without storing anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from punctual.v1.schedule_pb2 import (
    MONTH_END_LAST_DAY,
    MONTH_END_SKIP,
    CronRule,
    DailyRule,
    LocalDateTime,
    MonthlyRule,
    OneTimeRule,
    Schedule,
    Weekday,
    WeeklyRule,
)

from libs.client.timestamps import duration, timestamp


def at(moment: datetime, zone: str = "") -> Schedule:
    """Fire once: at the instant of an aware datetime, or when the wall clock of `zone` shows a naive one.

    Raises:
        ValueError: a naive datetime without a zone, or an aware one with a zone.
    """
    if (moment.utcoffset() is None) != bool(zone):
        raise ValueError("pass an aware datetime, or a naive one together with its zone")
    if not zone:
        return Schedule(one_time=OneTimeRule(instant=timestamp(moment)))
    local = LocalDateTime(date=moment.date().isoformat(), time=moment.time().isoformat(timespec="seconds"))
    return Schedule(one_time=OneTimeRule(local=local), time_zone=zone)


def daily(time: str, zone: str = "UTC") -> Schedule:
    """Fire every day at `HH:MM`."""
    return Schedule(daily=DailyRule(time=time), time_zone=zone)


def weekly(days: Iterable[str], time: str, zone: str = "UTC") -> Schedule:
    """Fire on the named days (`mon` to `sun`) at `HH:MM`.

    Raises:
        ValueError: an unknown day.
    """
    values = [Weekday.Value(f"WEEKDAY_{day.upper()}") for day in days]
    return Schedule(weekly=WeeklyRule(days=values, time=time), time_zone=zone)


def monthly(day: int, time: str, zone: str = "UTC", *, last_day: bool = False) -> Schedule:
    """Fire on a day of each month at `HH:MM`; months that lack it have no fire, or with `last_day` their last day."""
    month_end = MONTH_END_LAST_DAY if last_day else MONTH_END_SKIP
    return Schedule(monthly=MonthlyRule(day=day, time=time, month_end=month_end), time_zone=zone)


def cron(expression: str, zone: str = "UTC") -> Schedule:
    """Fire where a five-field cron expression matches."""
    return Schedule(cron=CronRule(expression=expression), time_zone=zone)


def bounded(
    schedule: Schedule,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: timedelta | None = None,
) -> Schedule:
    """Return the schedule with bounds set: no fire before `start` or after `end`, each spread by up to `jitter`."""
    changed = Schedule()
    changed.CopyFrom(schedule)
    changed.MergeFrom(Schedule(start_time=timestamp(start), end_time=timestamp(end), jitter=duration(jitter)))
    return changed
