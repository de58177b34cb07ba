"""Between the Schedule message and the schedule value."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Literal

from punctual.v1 import schedule_pb2

from libs.common.errors import InvalidArgumentError
from libs.common.rpc.timestamps import to_timestamp
from services.scheduler.adapters.rpc.part_reading import Problems
from services.scheduler.adapters.rpc.times import to_duration, to_instant, to_optional_timestamp, to_span
from services.scheduler.domain.schedule import (
    Adjustment,
    Cron,
    Daily,
    MonthEnd,
    Monthly,
    OneTimeAt,
    OneTimeLocal,
    PreviewedFire,
    Rule,
    Schedule,
    Weekday,
    Weekly,
    check_frame,
    parse_local,
    parse_time,
)

# Stands in for a rule that could not be read, until all problems of the message are told.
_NO_RULE: Rule = Daily(time(0, 0))

_MONTH_ENDS = {
    schedule_pb2.MONTH_END_UNSPECIFIED: MonthEnd.SKIP,
    schedule_pb2.MONTH_END_SKIP: MonthEnd.SKIP,
    schedule_pb2.MONTH_END_LAST_DAY: MonthEnd.LAST_DAY,
}
_ADJUSTMENTS = {
    Adjustment.GAP: schedule_pb2.FIRE_ADJUSTMENT_GAP,
    Adjustment.FOLD: schedule_pb2.FIRE_ADJUSTMENT_FOLD,
    Adjustment.MONTH_END: schedule_pb2.FIRE_ADJUSTMENT_MONTH_END,
}


def to_schedule(message: schedule_pb2.Schedule) -> Schedule:
    """Return the schedule of a message; an empty zone is UTC.

    Raises:
        InvalidArgumentError: parts that cannot be read, and what is wrong with the others; paths are relative to the
            schedule.
    """
    problems = Problems()
    schedule = Schedule(
        rule=problems.read(lambda: _to_rule(message), _NO_RULE),
        time_zone=message.time_zone or "UTC",
        start_time=problems.read(lambda: _to_optional_instant(message, "start_time"), None),
        end_time=problems.read(lambda: _to_optional_instant(message, "end_time"), None),
        jitter=problems.read(
            lambda: to_span(message.jitter, "jitter") if message.HasField("jitter") else timedelta(0), timedelta(0)
        ),
    )
    if problems:
        raise InvalidArgumentError([*problems, *check_frame(schedule)])
    return schedule


def _to_optional_instant(message: schedule_pb2.Schedule, field: Literal["start_time", "end_time"]) -> datetime | None:
    return to_instant(getattr(message, field), field) if message.HasField(field) else None


def _to_rule(message: schedule_pb2.Schedule) -> Rule:
    match message.WhichOneof("rule"):
        case "one_time":
            return _to_one_time(message.one_time)
        case "daily":
            return Daily(parse_time(message.daily.time, "daily.time"))
        case "weekly":
            # One more than there are names one of them twice, which is refused; a message has room for millions.
            days = tuple(_to_weekday(day) for day in message.weekly.days[: len(Weekday) + 1])
            return Weekly(days, parse_time(message.weekly.time, "weekly.time"))
        case "monthly":
            month_end = _MONTH_ENDS.get(message.monthly.month_end)
            if month_end is None:
                raise InvalidArgumentError.of("monthly.month_end", "UNKNOWN_ENUM_VALUE", "is not a known value")
            return Monthly(message.monthly.day, parse_time(message.monthly.time, "monthly.time"), month_end)
        case "cron":
            return Cron(message.cron.expression)
        case None:
            raise InvalidArgumentError.of(
                "rule", "REQUIRED", "one of one_time, daily, weekly, monthly and cron is required"
            )


def _to_one_time(message: schedule_pb2.OneTimeRule) -> OneTimeAt | OneTimeLocal:
    match message.WhichOneof("at"):
        case "instant":
            return OneTimeAt(to_instant(message.instant, "one_time.instant"))
        case "local":
            return OneTimeLocal(parse_local(message.local.date, message.local.time))
        case None:
            raise InvalidArgumentError.of("one_time.at", "REQUIRED", "one of instant and local is required")


def _to_weekday(day: schedule_pb2.Weekday.ValueType) -> Weekday:
    if not schedule_pb2.WEEKDAY_MON <= day <= schedule_pb2.WEEKDAY_SUN:
        raise InvalidArgumentError.of("weekly.days", "INVALID_DAYS", "holds a value that is no weekday")
    return Weekday(day - schedule_pb2.WEEKDAY_MON)


def from_schedule(schedule: Schedule) -> schedule_pb2.Schedule:
    """Return the message of a schedule."""
    message = schedule_pb2.Schedule(
        time_zone=schedule.time_zone,
        start_time=to_optional_timestamp(schedule.start_time),
        end_time=to_optional_timestamp(schedule.end_time),
        jitter=to_duration(schedule.jitter) if schedule.jitter else None,
    )
    match schedule.rule:
        case OneTimeAt(instant):
            message.one_time.instant.CopyFrom(to_timestamp(instant))
        case OneTimeLocal(wall):
            message.one_time.local.date = wall.date().isoformat()
            message.one_time.local.time = wall.time().isoformat("seconds")
        case Daily(at):
            message.daily.time = at.isoformat("minutes")
        case Weekly(days, at):
            message.weekly.time = at.isoformat("minutes")
            message.weekly.days.extend(schedule_pb2.Weekday.ValueType(day + schedule_pb2.WEEKDAY_MON) for day in days)
        case Monthly(day, at, month_end):
            message.monthly.day = day
            message.monthly.time = at.isoformat("minutes")
            message.monthly.month_end = (
                schedule_pb2.MONTH_END_LAST_DAY if month_end is MonthEnd.LAST_DAY else schedule_pb2.MONTH_END_SKIP
            )
        case Cron(expression):
            message.cron.expression = expression
    return message


def from_fire(fire: PreviewedFire) -> schedule_pb2.Fire:
    """Return the message of a previewed fire."""
    return schedule_pb2.Fire(
        fire_time=to_timestamp(fire.fire_time),
        local_time=fire.local.isoformat(timespec="seconds"),
        adjustments=sorted(_ADJUSTMENTS[adjustment] for adjustment in fire.adjustments),
    )
