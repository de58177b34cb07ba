"""What a tick finds, as queries: the same for the tick itself, for the probe that spares it, and for the watchdog."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from services.scheduler.adapters.mongo.codec import Document
from services.scheduler.domain.execution import Phase
from services.scheduler.domain.job import PARTITION_COUNT, JobState

# A null sorts before every date, so a bound from below keeps jobs without a further fire out of the range.
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


def due_jobs(until: datetime, *, since: datetime | None = None, partitions: Collection[int] | None = None) -> Document:
    """Return the filter of ACTIVE jobs that are due after `since` and by `until`; None restricts nothing."""
    due = {"state": JobState.ACTIVE, "next_due_time": {"$gt": since or _BEGINNING, "$lte": until}}
    return {**due, **_among(partitions)}


def ended_waits(until: datetime, partitions: Collection[int]) -> Document:
    """Return the filter of executions whose wait ends by `until`."""
    return {"phase": Phase.WAITING, "wake_time": {"$lte": until}, **_among(partitions)}


def _among(partitions: Collection[int] | None) -> Document:
    # All of them named would be compared with each key.
    if partitions is None or len(partitions) == PARTITION_COUNT:
        return {}
    return {"partition": {"$in": list(partitions)}}
