"""Asks MongoDB whether a tick would find anything, by one command over both collections.

An acquire call that waits asks it again and again, nearly always for nothing. A command that comes out of nothing costs
this process and MongoDB about a millisecond each, whatever is asked; one that tells of jobs and executions together
costs half of two.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from services.scheduler.adapters.mongo.codec import Document
from services.scheduler.adapters.mongo.documents import ExecutionDocument, JobDocument
from services.scheduler.domain.execution import Phase
from services.scheduler.domain.job import PARTITION_COUNT, JobState

# A null sorts before every date, so a bound from below keeps jobs without a further fire out of the range.
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


class MongoDueProbe:
    """Implements `DueProbe`."""

    async def anything(self, partitions: Collection[int], until: datetime) -> bool:
        """Return whether an ACTIVE job's fire is due, or an execution's wait ends, by `until`."""
        among: Document = {} if len(partitions) == PARTITION_COUNT else {"partition": {"$in": list(partitions)}}
        jobs: Document = {"state": JobState.ACTIVE, "next_due_time": {"$gt": _BEGINNING, "$lte": until}, **among}
        executions: Document = {"phase": Phase.WAITING, "wake_time": {"$lte": until}, **among}
        waiting = {"coll": ExecutionDocument.get_pymongo_collection().name, "pipeline": _any(executions)}
        cursor = await JobDocument.get_pymongo_collection().aggregate(
            [*_any(jobs), {"$unionWith": waiting}, {"$limit": 1}], hint="tick"
        )
        return bool(await cursor.to_list())


def _any(query: Document) -> list[Document]:
    return [{"$match": query}, {"$limit": 1}, {"$project": {"_id": 1}}]
