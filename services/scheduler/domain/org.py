"""What an org has set for itself, and what the operator of the installation grants it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from libs.common.errors import FieldViolation, InvalidArgumentError
from services.scheduler.domain.schedule import Schedule, next_fire
from services.scheduler.domain.target_url import split_target_url

MAX_JOBS = 10_000_000
MAX_INTERVAL = timedelta(days=1)
SAMPLED_FIRES = 50
"""Fires of a schedule that are looked at to find its shortest interval."""


@dataclass(frozen=True, slots=True)
class OrgSettings:
    """An org's settings and quotas, the installation's defaults filled in."""

    org_id: str
    max_jobs: int
    max_stored_bytes: int
    max_creates_per_minute: int
    min_interval: timedelta = timedelta(0)
    job_failed_callback_url: str = ""
    version: int = 0
    """Grows with each write; 0: never written."""


OPERATOR_FIELDS = ("max_jobs", "min_interval", "max_stored_bytes", "max_creates_per_minute")
"""The quotas: an org cannot grant itself more."""


def check_org_settings(settings: OrgSettings) -> None:
    """Raise InvalidArgumentError with every violation."""
    violations = list(_violations(settings))
    if violations:
        raise InvalidArgumentError(violations)


def _violations(settings: OrgSettings) -> Iterator[FieldViolation]:
    if not 1 <= settings.max_jobs <= MAX_JOBS:
        yield FieldViolation("max_jobs", "OUT_OF_RANGE", f"is not within 1 to {MAX_JOBS}")
    if not timedelta(0) <= settings.min_interval <= MAX_INTERVAL:
        yield FieldViolation("min_interval", "OUT_OF_RANGE", "is not within 0 to 1 day")
    if settings.max_stored_bytes < 1:
        yield FieldViolation("max_stored_bytes", "OUT_OF_RANGE", "must be at least 1")
    if settings.max_creates_per_minute < 1:
        yield FieldViolation("max_creates_per_minute", "OUT_OF_RANGE", "must be at least 1")
    if settings.job_failed_callback_url:
        try:
            split_target_url(settings.job_failed_callback_url, "job_failed_callback_url")
        except InvalidArgumentError as error:
            yield from error.violations


def check_interval(schedule: Schedule, after: datetime, least: timedelta) -> Iterator[FieldViolation]:
    """Yield what is wrong with a schedule that may not fire more often than an interval."""
    if not least:
        return
    shortest = shortest_interval(schedule, after)
    if shortest is not None and shortest < least:
        yield FieldViolation(
            "schedule",
            "INTERVAL_TOO_SHORT",
            f"fires {shortest.total_seconds():g} s apart; the org's shortest interval is {least.total_seconds():g} s",
        )


def shortest_interval(schedule: Schedule, after: datetime) -> timedelta | None:
    """Return the shortest time between two of the next fires; None when there are fewer than two."""
    fires: list[datetime] = []
    fire = next_fire(schedule, after)
    while fire is not None and len(fires) < SAMPLED_FIRES:
        fires.append(fire)
        fire = next_fire(schedule, fire)
    return min((later - earlier for earlier, later in pairwise(fires)), default=None)
