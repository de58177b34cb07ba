"""Asks MongoDB whether a tick would find anything, by one command over both collections.

An acquire call that waits asks it again and again, nearly always for nothing. A command that comes out of nothing costs
this process and MongoDB about a millisecond each, whatever is asked; one that tells of jobs and executions together
costs half of two.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from services.scheduler.adapters.mongo.codec import Document
from services.scheduler.adapters.mongo.documents import ExecutionDocument, JobDocument
from services.scheduler.adapters.mongo.due_filters import due_jobs, ended_waits


class MongoDueProbe:
    """Implements `DueProbe`."""

    async def anything(self, partitions: Collection[int], until: datetime) -> bool:
        """Return whether an ACTIVE job's fire is due, or an execution's wait ends, by `until`."""
        waits = _any(ended_waits(until, partitions))
        waiting = {"coll": ExecutionDocument.get_pymongo_collection().name, "pipeline": waits}
        cursor = await JobDocument.get_pymongo_collection().aggregate(
            [*_any(due_jobs(until, partitions=partitions)), {"$unionWith": waiting}, {"$limit": 1}], hint="tick"
        )
        return bool(await cursor.to_list())


def _any(query: Document) -> list[Document]:
    return [{"$match": query}, {"$limit": 1}, {"$project": {"_id": 1}}]
