"""Cancellations in memory: of one execution for a caller, and of all that a deleted job left."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from services.scheduler.domain.execution import Cause, Execution, ExecutionState, Phase
from services.scheduler.testing.checkpoint import Checkpoint, as_stored, operation
from services.scheduler.testing.memory_lease_writes import SETTLE_GRACE, Record
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.ports.execution_store import Cancellation


class MemoryCancelWrites:
    """The cancelling part of the in-memory execution store."""

    _retention: timedelta
    _checkpoint: Checkpoint
    _records: dict[str, Record]
    events: list[AuditEvent]

    async def cancel_ready(
        self, execution: Execution, cancellation: Cancellation, now: datetime, *, audit: AuditEvent | None = None
    ) -> bool:
        """End a READY execution as CANCELLED, to be settled."""
        async with operation(self._checkpoint, "executions.cancel_ready"):
            record = self._records.get(execution.execution_id)
            if record is None or (record.execution.state, record.execution.fencing_token) != (
                ExecutionState.READY,
                execution.fencing_token,
            ):
                return False
            self._end(record, ExecutionState.CANCELLED, cancellation, now)
            record.execution = as_stored(replace(record.execution, phase=Phase.SETTLING, wake_time=now + SETTLE_GRACE))
            self._note(audit)
            return True

    async def request_cancel(
        self, execution: Execution, cancellation: Cancellation, *, audit: AuditEvent | None = None
    ) -> bool:
        """Ask the executor of a RUNNING execution to stop."""
        async with operation(self._checkpoint, "executions.request_cancel"):
            record = self._records.get(execution.execution_id)
            if record is None or not _may_be_asked(record.execution):
                return False
            record.execution = _asked(record.execution, cancellation)
            self._note(audit)
            return True

    async def cancel_job(self, job_id: str, cancellation: Cancellation, now: datetime) -> None:
        """End all READY executions of a job that is deleted, and ask the executors of RUNNING ones to stop."""
        async with operation(self._checkpoint, "executions.cancel_job"):
            for execution_id, record in list(self._records.items()):
                execution = record.execution
                if execution.job_id != job_id:
                    continue
                if _may_be_asked(execution):
                    record.execution = _asked(execution, cancellation)
                elif execution.state is not ExecutionState.READY:
                    continue
                elif execution.attempt_number > 0:
                    self._end(record, ExecutionState.CANCELLED, cancellation, now)
                elif execution.cause is Cause.SCHEDULE and execution.fire_time > now:
                    del self._records[execution_id]
                else:
                    self._end(record, ExecutionState.SKIPPED, cancellation, now)

    def _end(self, record: Record, state: ExecutionState, cancellation: Cancellation, now: datetime) -> None:
        record.overlap_slot = record.queue_slot = ""
        record.execution = as_stored(
            replace(
                _asked(record.execution, cancellation),
                state=state,
                state_reason=cancellation.reason,
                end_time=now,
                expire_time=now + self._retention,
                phase=None,
                wake_time=None,
                available_time=None,
                wait_reason="",
                begin_request_id="",
            )
        )

    def _note(self, event: AuditEvent | None) -> None:
        if event is not None:
            self.events.append(event)


def _may_be_asked(execution: Execution) -> bool:
    return execution.state is ExecutionState.RUNNING and not execution.cancel_reason


def _asked(execution: Execution, cancellation: Cancellation) -> Execution:
    return replace(
        execution,
        cancel_reason=cancellation.reason,
        cancel_actor=cancellation.actor,
        cancel_note=cancellation.note,
    )
