"""Cancellations in MongoDB: of one execution for a caller, and of all that a deleted job left.

A READY execution ends here, under the token as it was read, so that a grant in between wins. A RUNNING one is only
marked: its executor hears of it at the next renewal of its lease, and the end comes as its report, or when the lease
runs out.
"""

from __future__ import annotations

import abc
from datetime import datetime, timedelta
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection

from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.codec import Document
from services.scheduler.adapters.mongo.end_writes import SETTLE_GRACE
from services.scheduler.domain.execution import Cause, Execution, ExecutionState, Phase
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.ports.execution_store import Cancellation

_WAITING_FIELDS = dict.fromkeys(
    ("available_time", "wait_reason", "overlap_slot", "queue_slot", "begin_request_id", "phase", "wake_time"), ""
)


class CancelWrites(abc.ABC):
    """The cancelling part of the execution store."""

    _retention: timedelta
    _outbox: AuditOutbox

    @property
    @abc.abstractmethod
    def _executions(self) -> AsyncCollection[dict[str, Any]]: ...

    async def cancel_ready(
        self, execution: Execution, cancellation: Cancellation, now: datetime, *, audit: AuditEvent | None = None
    ) -> bool:
        """End a READY execution as CANCELLED, to be settled."""
        unset = {name: "" for name in _WAITING_FIELDS if name not in {"phase", "wake_time"}}
        settling = {"phase": Phase.SETTLING, "wake_time": now + SETTLE_GRACE}
        result = await self._executions.update_one(
            {
                "_id": execution.execution_id,
                "state": ExecutionState.READY,
                "fencing_token": execution.fencing_token,
            },
            {
                "$set": {**self._ended(ExecutionState.CANCELLED, cancellation, now), **settling},
                "$unset": unset,
                **self._outbox.push(audit),
            },
        )
        return self._noted(result.modified_count == 1, audit)

    async def request_cancel(
        self, execution: Execution, cancellation: Cancellation, *, audit: AuditEvent | None = None
    ) -> bool:
        """Ask the executor of a RUNNING execution to stop."""
        result = await self._executions.update_one(
            {
                "_id": execution.execution_id,
                "state": ExecutionState.RUNNING,
                "cancel_reason": {"$exists": False},
            },
            {"$set": _asked(cancellation), **self._outbox.push(audit)},
        )
        return self._noted(result.modified_count == 1, audit)

    async def cancel_job(self, job_id: str, cancellation: Cancellation, now: datetime) -> None:
        """End all READY executions of a job that is deleted, and ask the executors of RUNNING ones to stop."""
        live = {"job_id": job_id, "phase": {"$exists": True}}
        ready = {**live, "state": ExecutionState.READY}
        # No job will ever be active when these fires come: they are not skipped, they never happen.
        ahead = {"cause": Cause.SCHEDULE, "attempt_number": 0, "fire_time": {"$gt": now}}
        await self._executions.delete_many({**ready, **ahead}, hint="live")
        for state, tried in ((ExecutionState.SKIPPED, {"$lte": 0}), (ExecutionState.CANCELLED, {"$gt": 0})):
            result = await self._executions.update_many(
                {**ready, "attempt_number": tried},
                {"$set": self._ended(state, cancellation, now), "$unset": _WAITING_FIELDS},
                hint="live",
            )
            self._swept(state, cancellation.reason, result.modified_count)
        await self._executions.update_many(
            {**live, "state": ExecutionState.RUNNING, "cancel_reason": {"$exists": False}},
            {"$set": _asked(cancellation)},
            hint="live",
        )

    def _ended(self, state: ExecutionState, cancellation: Cancellation, now: datetime) -> Document:
        return {
            "state": state,
            "state_reason": cancellation.reason,
            "end_time": now,
            "expire_time": now + self._retention,
            **_asked(cancellation),
        }

    def _swept(self, state: ExecutionState, reason: str, count: int) -> None:  # noqa: B027 - nobody has to count
        """Hear of scheduled executions that were ended all at once; for those who count them."""

    def _noted(self, written: bool, audit: AuditEvent | None) -> bool:
        if written:
            self._outbox.written(audit)
        return written


def _asked(cancellation: Cancellation) -> Document:
    return {
        "cancel_reason": cancellation.reason,
        "cancel_actor": cancellation.actor,
        "cancel_note": cancellation.note,
    }
