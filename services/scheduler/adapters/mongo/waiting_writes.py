"""Executions in MongoDB that wait for more than an instant: for another execution of their job, or for a target host.

Each has an instant as well, at which it continues if nobody wakes it; so a wake-up that is lost costs time only.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from services.scheduler.adapters.mongo.codec import Document
from services.scheduler.domain.execution import Execution, ExecutionState, Phase
from services.scheduler.domain.target_host import TARGET_WAIT_REASONS

WAKE_BATCH = 1000
MAX_WOKEN = 100_000
"""Executions that one call lets continue; beyond them, what waits comes at its own time."""


class WaitingWrites(abc.ABC):
    """The waiting part of the execution store."""

    @property
    @abc.abstractmethod
    def _executions(self) -> AsyncCollection[dict[str, Any]]: ...

    async def queue_behind(self, execution: Execution, job_id: str, recheck_time: datetime) -> bool:
        """Let an overlapping execution wait for the running one; False when another one waits already."""
        try:
            result = await self._executions.update_one(
                {"_id": execution.execution_id, "state": ExecutionState.READY},
                {
                    "$set": {
                        "queue_slot": job_id,
                        "phase": Phase.WAITING,
                        "wake_time": recheck_time,
                        "available_time": recheck_time,
                        "wait_reason": "OVERLAP",
                    }
                },
            )
        except DuplicateKeyError:
            return False
        return result.matched_count == 1

    async def is_slot_taken(self, job_id: str) -> bool:
        """Whether an execution of the job holds its overlap slot."""
        return await self._executions.find_one({"overlap_slot": job_id}, {"_id": 1}) is not None

    async def wake_queued(self, job_ids: Collection[str], now: datetime) -> bool:
        """Let executions continue that wait for another of their job to end."""
        result = await self._executions.update_many(
            {"queue_slot": {"$in": list(job_ids)}, "phase": Phase.WAITING},
            {"$set": {"wake_time": now, "available_time": now}},
        )
        return result.modified_count > 0

    async def wake_waiting(self, org_id: str, host: str, wake_time: datetime) -> int:
        """Let executions of an org that wait for a host continue at an instant."""
        waiting: Document = {"phase": Phase.WAITING, "wake_time": {"$gt": wake_time}}
        waiting |= {"org_id": org_id, "wait_host": host, "wait_reason": {"$in": sorted(TARGET_WAIT_REASONS)}}
        # A walk over what waits at this moment; an index for a rare call would cost two writes a deferral.
        cursor = self._executions.find(
            waiting, {"_id": 1}, sort=[("wake_time", 1)], limit=MAX_WOKEN, batch_size=WAKE_BATCH, hint="wake"
        )
        woken = 0
        ids: list[str] = []
        async for document in cursor:
            ids.append(document["_id"])
            if len(ids) == WAKE_BATCH:
                woken += await self._wake(ids, waiting, wake_time)
                ids = []
        return woken + (await self._wake(ids, waiting, wake_time) if ids else 0)

    async def _wake(self, ids: Sequence[str], waiting: Document, wake_time: datetime) -> int:
        result = await self._executions.update_many(
            {"_id": {"$in": ids}, **waiting}, {"$set": {"wake_time": wake_time, "available_time": wake_time}}
        )
        return result.modified_count
