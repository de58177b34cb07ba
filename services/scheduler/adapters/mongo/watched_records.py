"""What the watchdog asks MongoDB: bounded counts and the oldest of each kind, each a walk over one small index."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection

from services.scheduler.adapters.mongo.codec import Document
from services.scheduler.adapters.mongo.documents import ExecutionDocument, JobDocument
from services.scheduler.adapters.mongo.due_filters import due_jobs
from services.scheduler.domain.execution import Phase
from services.scheduler.usecases.watchdog import Overdue, Place

_PHASES = {
    Place.WAITING: Phase.WAITING,
    Place.DISPATCHED: Phase.DISPATCHED,
    Place.LEASED: Phase.LEASED,
    Place.SETTLING: Phase.SETTLING,
}


class MongoWatchedRecords:
    """Implements `Records`."""

    async def overdue(self, now: datetime, most: int) -> Mapping[Place, Overdue]:
        """Return what is overdue at each place, counted up to a bound."""
        jobs, executions = await asyncio.gather(
            _overdue(_jobs(), due_jobs(now), "tick", "next_due_time", most), _overdue_executions(now, most)
        )
        return {Place.JOB: jobs, **executions}

    async def partitions_of_overdue_jobs(self, among: Collection[int], before: datetime, most: int) -> frozenset[int]:
        """Return those of the partitions that the oldest jobs with fires from before an instant are in."""
        query = due_jobs(before, partitions=among)
        cursor = _jobs().find(query, {"_id": 0, "partition": 1}, sort=[("next_due_time", 1)], limit=most, hint="tick")
        return frozenset([document["partition"] async for document in cursor])


async def _overdue_executions(now: datetime, most: int) -> Mapping[Place, Overdue]:
    # As a rule nothing is overdue, which one question shows.
    lying = {"phase": {"$in": list(_PHASES.values())}, "wake_time": {"$lte": now}}
    if await _executions().find_one(lying, {"_id": 0, "phase": 1}, hint="wake") is None:
        return dict.fromkeys(_PHASES, Overdue())
    found = await asyncio.gather(
        *(
            _overdue(_executions(), {"phase": phase, "wake_time": {"$lte": now}}, "wake", "wake_time", most)
            for phase in _PHASES.values()
        )
    )
    return dict(zip(_PHASES, found, strict=True))


async def _overdue(
    collection: AsyncCollection[dict[str, Any]], query: Document, index: str, field: str, most: int
) -> Overdue:
    oldest = await collection.find_one(query, {"_id": 0, field: 1}, sort=[(field, 1)], hint=index)
    if oldest is None:
        return Overdue()
    return Overdue(await collection.count_documents(query, limit=most, hint=index), oldest[field])


def _jobs() -> AsyncCollection[dict[str, Any]]:
    return JobDocument.get_pymongo_collection()


def _executions() -> AsyncCollection[dict[str, Any]]:
    return ExecutionDocument.get_pymongo_collection()
