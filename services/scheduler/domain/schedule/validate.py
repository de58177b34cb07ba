"""What is refused when a schedule comes in, all of it in one report.

Paths are relative to the Schedule message (`cron.expression`, `end_time`); the caller puts `job.schedule` before them.
A stored schedule is not checked again: a one-time job that is late after an outage is late, not invalid.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time, timedelta

from libs.common.errors import FieldViolation, InvalidArgumentError
from services.scheduler.domain.schedule.engine import LATEST, ONE_TIME_TOLERANCE, first_fire
from services.scheduler.domain.schedule.grammar import parse_cron
from services.scheduler.domain.schedule.readings import SEARCH_YEARS
from services.scheduler.domain.schedule.rules import (
    Cron,
    Daily,
    Monthly,
    OneTimeAt,
    OneTimeLocal,
    Rule,
    Schedule,
    Weekday,
    Weekly,
)
from services.scheduler.domain.schedule.zones import find_zone

MAX_JITTER = timedelta(hours=1)


def check_schedule(schedule: Schedule, now: datetime) -> None:
    """Raise InvalidArgumentError with every violation of a schedule that is to count from now.

    What only a sound part can answer is asked last: whether the rule ever fires needs the zone, and whether it fires
    within the bounds needs all the rest.
    """
    violations = [*_check_zone(schedule.time_zone), *_check_rule(schedule.rule)]
    if not violations:
        violations += _check_rule_fires(schedule, now)
    violations += [*_check_bounds(schedule), *_check_jitter(schedule.jitter)]
    if not violations and _is_bounded(schedule):
        violations += _check_fires_within_bounds(schedule, now)
    if violations:
        raise InvalidArgumentError(violations)


def check_frame(schedule: Schedule) -> list[FieldViolation]:
    """Return what is wrong with a schedule beside its rule, where that cannot be read."""
    return [*_check_zone(schedule.time_zone), *_check_bounds(schedule), *_check_jitter(schedule.jitter)]


def _is_bounded(schedule: Schedule) -> bool:
    return schedule.start_time is not None or schedule.end_time is not None


def _check_zone(time_zone: str) -> tuple[FieldViolation, ...]:
    try:
        find_zone(time_zone)
    except InvalidArgumentError as error:
        return error.violations
    return ()


def _check_rule(rule: Rule) -> tuple[FieldViolation, ...]:
    match rule:
        case OneTimeAt():
            return ()
        case OneTimeLocal(wall):
            return _check_whole_seconds(wall)
        case Daily(at):
            return _check_time("daily.time", at)
        case Weekly(days, at):
            return (*_check_days(days), *_check_time("weekly.time", at))
        case Monthly(day, at):
            return (*_check_day(day), *_check_time("monthly.time", at))
        case Cron(expression):
            return _check_cron(expression)


def _check_whole_seconds(wall: datetime) -> tuple[FieldViolation, ...]:
    if not wall.microsecond and wall.tzinfo is None:
        return ()
    return (FieldViolation("one_time.local", "INVALID_TIME", "must be whole seconds without an offset"),)


def _check_time(field: str, at: time) -> tuple[FieldViolation, ...]:
    if at == at.replace(second=0, microsecond=0, tzinfo=None):
        return ()
    return (FieldViolation(field, "INVALID_TIME", "must be whole minutes without an offset"),)


def _check_days(days: tuple[Weekday, ...]) -> tuple[FieldViolation, ...]:
    if days and len(set(days)) == len(days):
        return ()
    return (FieldViolation("weekly.days", "INVALID_DAYS", "must name at least one weekday and none twice"),)


def _check_day(day: int) -> tuple[FieldViolation, ...]:
    if 1 <= day <= 31:
        return ()
    return (FieldViolation("monthly.day", "INVALID_DAY", f"{day} is not within 1 to 31"),)


def _check_cron(expression: str) -> tuple[FieldViolation, ...]:
    try:
        parse_cron(expression)
    except InvalidArgumentError as error:
        return error.violations
    return ()


def _check_rule_fires(schedule: Schedule, now: datetime) -> tuple[FieldViolation, ...]:
    """Check that the rule alone, without the bounds, has a fire from now on."""
    unbounded = replace(schedule, start_time=None, end_time=None) if _is_bounded(schedule) else schedule
    if first_fire(unbounded, now) is not None:
        return ()
    match schedule.rule:
        case OneTimeAt(moment):
            return (_missed("one_time.instant", moment),)
        case OneTimeLocal(moment):
            return (_missed("one_time.local", moment),)
        case Cron():
            description = f"matches no date within {SEARCH_YEARS} years"
            return (FieldViolation("cron.expression", "NEVER_FIRES", description),)
        case _:
            # The other rules run dry at the end of the calendar only: each has a fire within three months.
            return (FieldViolation("rule", "NEVER_FIRES", f"has no fire before the year {LATEST.year}"),)


def _missed(field: str, moment: datetime) -> FieldViolation:
    """Return why a one-time rule has no fire: its moment is over, or past the end of the calendar."""
    if moment.year > LATEST.year:
        return FieldViolation(field, "NEVER_FIRES", f"lies after the year {LATEST.year}")
    tolerance = ONE_TIME_TOLERANCE // timedelta(seconds=1)
    return FieldViolation(field, "RUN_AT_IN_PAST", f"lies more than {tolerance} seconds in the past")


def _check_bounds(schedule: Schedule) -> tuple[FieldViolation, ...]:
    if schedule.start_time and schedule.end_time and schedule.end_time < schedule.start_time:
        return (FieldViolation("end_time", "END_BEFORE_START", "must not lie before start_time"),)
    return ()


def _check_jitter(jitter: timedelta) -> tuple[FieldViolation, ...]:
    if timedelta(0) <= jitter <= MAX_JITTER:
        return ()
    return (FieldViolation("jitter", "INVALID_JITTER", "must be 0 to 1 hour"),)


def _check_fires_within_bounds(schedule: Schedule, now: datetime) -> tuple[FieldViolation, ...]:
    if first_fire(schedule, now) is not None:
        return ()
    field = "end_time" if schedule.end_time else "start_time"
    return (FieldViolation(field, "NEVER_FIRES", "leaves no fire of the rule from now on"),)
