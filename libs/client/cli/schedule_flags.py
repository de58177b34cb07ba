"""The flags that say when a job fires; exactly one of the five rules."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

import typer
from punctual.v1.schedule_pb2 import Schedule

from libs.client import schedules
from libs.client.cli.flag_values import local_or_instant, moment, optional_span

PANEL = "Schedule"
RULES = "--at, --daily, --weekly, --monthly, --cron"


class MonthEndChoice(enum.StrEnum):
    """What a monthly schedule does in months that lack its day."""

    SKIP = "skip"
    LAST_DAY = "last-day"


def _option(*names: str, text: str, metavar: str | None = None) -> object:
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=PANEL)


@dataclass(frozen=True)
class ScheduleFlags:
    """When a job fires."""

    at: Annotated[
        str | None,
        _option(text="Once, at 2026-12-01T09:00 (in --zone) or 2026-12-01T09:00:00Z.", metavar="TIME"),
    ] = None
    daily: Annotated[str | None, _option(text="Every day, at 09:00.", metavar="TIME")] = None
    weekly: Annotated[str | None, _option(text="On weekdays, mon,fri@09:00.", metavar="DAYS@TIME")] = None
    monthly: Annotated[str | None, _option(text="On a day of the month, 31@09:00.", metavar="DAY@TIME")] = None
    cron: Annotated[str | None, _option(text="By a cron expression, '*/5 * * * *'.", metavar="EXPRESSION")] = None
    zone: Annotated[str | None, _option(text="The IANA time zone, such as Europe/Berlin. Default UTC.")] = None
    month_end: Annotated[MonthEndChoice, _option(text="What --monthly does in months that lack the day.")] = (
        MonthEndChoice.SKIP
    )
    start: Annotated[str | None, _option(text="No fire before: RFC 3339, or +2h.", metavar="TIME")] = None
    end: Annotated[str | None, _option(text="No fire after: RFC 3339, or +30d.", metavar="TIME")] = None
    jitter: Annotated[str | None, _option(text="Spread each fire by up to this, 30s.", metavar="SPAN")] = None

    def schedule(self) -> Schedule | None:
        """Return the schedule, or None when no flag of it was given.

        Raises:
            typer.BadParameter: flags that make none.
        """
        rules = [self.at, self.daily, self.weekly, self.monthly, self.cron]
        given = sum(rule is not None for rule in rules)
        if not given and not any((self.zone, self.start, self.end, self.jitter)):
            return None
        if given != 1:
            raise typer.BadParameter(f"give exactly one of {RULES}")
        return schedules.bounded(
            self._rule(),
            start=moment(self.start, "--start"),
            end=moment(self.end, "--end"),
            jitter=optional_span(self.jitter, "--jitter"),
        )

    def required_schedule(self) -> Schedule:
        """Return the schedule of a command that cannot do without.

        Raises:
            typer.BadParameter: flags that make none.
        """
        schedule = self.schedule()
        if schedule is None:
            raise typer.BadParameter(f"give one of {RULES}")
        return schedule

    def _rule(self) -> Schedule:
        zone = self.zone or "UTC"
        if self.at is not None:
            return self._one_time(self.at)
        if self.daily is not None:
            return schedules.daily(self.daily, zone)
        if self.weekly is not None:
            days, time = _day_and_time(self.weekly, "--weekly")
            try:
                return schedules.weekly(days.split(","), time, zone)
            except ValueError as error:
                raise typer.BadParameter(f"{days!r} are not days such as mon,fri", param_hint="--weekly") from error
        if self.monthly is not None:
            day, time = _day_and_time(self.monthly, "--monthly")
            if not day.isdecimal():
                raise typer.BadParameter(f"{day!r} is not a day of the month", param_hint="--monthly")
            last_day = self.month_end is MonthEndChoice.LAST_DAY
            return schedules.monthly(min(int(day), 99), time, zone, last_day=last_day)
        return schedules.cron(self.cron or "", zone)

    def _one_time(self, text: str) -> Schedule:
        """Return the one-time rule; an instant needs no zone, and with one it would be said twice."""
        when = local_or_instant(text, "--at")
        if when.utcoffset() is None:
            return schedules.at(when, self.zone or "UTC")
        if self.zone:
            raise typer.BadParameter("has an offset already; leave --zone out", param_hint="--at")
        return schedules.at(when)


def _day_and_time(text: str, flag: str) -> tuple[str, str]:
    day, separator, time = text.partition("@")
    if not separator:
        raise typer.BadParameter(f"{text!r} lacks its time: DAY@HH:MM", param_hint=flag)
    return day, time
