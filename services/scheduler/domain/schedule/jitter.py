"""Jitter: the due time of a fire, spread so that jobs that share a fire time do not start in one millisecond.

The spread is a hash of the job and the fire time. Whoever computes it, on whichever replica and however often, gets the
same due time; a random one would change whenever a tick is repeated after a crash.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from services.scheduler.domain.schedule.engine import next_fire
from services.scheduler.domain.schedule.rules import Schedule

_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def due_time(schedule: Schedule, job_id: str, fire_time: datetime) -> datetime:
    """Return the fire time plus the job's offset, even over 0 to `jitter` in whole milliseconds.

    The following fire caps the spread and is never reached, so that the due times of a job keep the order of its fires.
    """
    spread = schedule.jitter
    if spread < _MILLISECOND:
        return fire_time
    following = next_fire(schedule, fire_time)
    if following is not None:
        spread = min(spread, following - fire_time - _MILLISECOND)
    choices = spread // _MILLISECOND + 1
    seed = f"{job_id}/{(fire_time - _EPOCH) // _MILLISECOND}".encode()
    digest = int.from_bytes(hashlib.sha256(seed).digest())
    return fire_time + digest % choices * _MILLISECOND
