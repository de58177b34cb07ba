"""Decides the fires of one job up to an instant: which become executions to run, which are skipped, and why.

Every fire between the job's cursor and the limit gets exactly one decision, oldest first; the new cursor is the first
fire without one. A call decides a bounded number of fires, so that a job that slept for a year is worked off over many
ticks instead of holding one up (the lesson of CronJob's "too many missed start times").

A fire is *missed* when it is seen more than the misfire grace after its due time. Missed fires follow the job's
catch-up policy. A missed fire that runs keeps its own fire time: the prompt speaks of its slot, not of now.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta

from libs.common.errors import PunctualError
from libs.common.value_type import value_type
from services.scheduler.domain.job import CatchUpMode, CatchUpPolicy
from services.scheduler.domain.schedule import Schedule, due_time, next_fire

MAX_DECISIONS = 500
"""Fires of one job that one call decides."""

MISFIRE_GRACE = timedelta(seconds=60)
"""How late a fire may be seen and still count as on time for the catch-up policy."""

UNUSABLE = (PunctualError, ValueError, OverflowError)
"""What a stored schedule raises that cannot be evaluated any more, such as one whose zone the time zone database
dropped."""


@value_type
class FireCursor:
    """What planning needs to know of a job: its rule, its policy, and the first fire without a decision."""

    job_id: str
    schedule: Schedule
    catch_up: CatchUpPolicy
    next_fire_time: datetime


@value_type
class PlannedFire:
    """One decided fire; without a skip reason it runs."""

    fire_time: datetime
    due_time: datetime
    skip_reason: str = ""


@value_type
class FirePlan:
    """The decisions, oldest first, and the first fire without one; `more` when that fire lies within the limit too."""

    fires: tuple[PlannedFire, ...]
    next_fire_time: datetime | None
    next_due_time: datetime | None
    more: bool


def plan_fires(cursor: FireCursor, now: datetime, until: datetime) -> FirePlan:
    """Decide the job's fires whose due time is at most `until`; `until` may lie ahead of `now` by the horizon."""
    keep = cursor.catch_up.max_fires if cursor.catch_up.mode is CatchUpMode.ALL else 1
    due: list[tuple[datetime, datetime]] = []
    fire: datetime | None = cursor.next_fire_time
    fire_due = due_time(cursor.schedule, cursor.job_id, cursor.next_fire_time)
    # One more than the policy can keep alive is read ahead: whatever lies before the last `keep` is certainly skipped.
    while fire is not None and fire_due <= until and len(due) < MAX_DECISIONS + keep:
        due.append((fire, fire_due))
        fire = next_fire(cursor.schedule, fire)
        if fire is not None:
            fire_due = due_time(cursor.schedule, cursor.job_id, fire)
    more = fire is not None and fire_due <= until
    decided = due[:-keep] if more else due
    fires = _decide(decided, overdue_total=_count_overdue(due, now), cursor=cursor, now=now)
    if more:
        # The fires that may still run are decided when the end of the backlog is in sight.
        fire, fire_due = due[-keep]
    return FirePlan(tuple(fires), fire, fire_due if fire is not None else None, more)


def _count_overdue(due: Sequence[tuple[datetime, datetime]], now: datetime) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[1] <= now, due))


def _decide(
    decided: Sequence[tuple[datetime, datetime]], *, overdue_total: int, cursor: FireCursor, now: datetime
) -> list[PlannedFire]:
    fires = []
    for index, (fire, fire_due) in enumerate(decided):
        newer_overdue = overdue_total - index - 1
        reason = _skip_reason(fire_due, newer_overdue, cursor.catch_up, now)
        fires.append(PlannedFire(fire, fire_due, reason))
    return fires


def _skip_reason(fire_due: datetime, newer_overdue: int, policy: CatchUpPolicy, now: datetime) -> str:
    """Return why a fire does not run, or nothing; `newer_overdue` counts later fires that are due by now as well."""
    if fire_due > now:
        return ""
    missed = now - fire_due > MISFIRE_GRACE
    if missed and now - fire_due > policy.window:
        return "CATCH_UP_WINDOW"
    if missed and policy.mode is CatchUpMode.NONE:
        return "MISSED"
    if missed and policy.mode is CatchUpMode.LATEST and newer_overdue > 0:
        return "COALESCED"
    if missed and policy.mode is CatchUpMode.ALL and newer_overdue >= policy.max_fires:
        return "CATCH_UP_LIMIT"
    return ""
