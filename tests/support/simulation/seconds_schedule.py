"""Schedules in the quick: `*/5 * * * *` fires every five seconds, so that seconds of virtual time hold many fires.

The engine that turns rules into instants has tests of its own; here it is replaced at its innermost function, so that
bounds, jitter and all that builds on them stay real. `fires_between` is the independent walk that the checks go by: it
knows nothing of cursors, ticks or the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from services.scheduler.domain.schedule import Cron, OneTimeAt, Rule, Schedule
from services.scheduler.domain.schedule.engine import Match
from tests.support.simulation.kernel import EPOCH

PERIODS = (2, 3, 5, 10)
_SECONDS = {f"*/{period} * * * *": timedelta(seconds=period) for period in PERIODS}


def every(seconds: int) -> Cron:
    """Return the rule that fires every so many seconds."""
    return Cron(f"*/{seconds} * * * *")


def next_of_rule(rule: Rule, _time_zone: str, after: datetime) -> Match | None:
    """Stand in for the engine's `_next_of_rule`."""
    if isinstance(rule, OneTimeAt):
        return Match(rule.instant, rule.instant) if rule.instant > after else None
    assert isinstance(rule, Cron)
    period = _SECONDS[rule.expression]
    fire = EPOCH + ((after - EPOCH) // period + 1) * period
    return Match(fire, fire)


def fires_between(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the fires of a schedule in (after, until]."""
    if schedule.end_time is not None:
        until = min(until, schedule.end_time)
    if isinstance(schedule.rule, OneTimeAt):
        if after < schedule.rule.instant <= until:
            yield schedule.rule.instant
        return
    assert isinstance(schedule.rule, Cron)
    step = int(schedule.rule.expression[2 : schedule.rule.expression.index(" ")])
    number = 0
    while (fire := EPOCH + timedelta(seconds=number * step)) <= until:
        if fire > after:
            yield fire
        number += 1
