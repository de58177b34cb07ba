"""Stops an execution for a caller: a waiting one at once, a running one as soon as its executor hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.common.clock import Clock
from libs.common.errors import AbortedError
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.execution import Execution, ExecutionState
from services.scheduler.usecases.audit import AuditEvent, call_event
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.change_job_state import MAX_TRIES, check_note
from services.scheduler.usecases.ports.execution_store import Cancellation, ExecutionStore
from services.scheduler.usecases.ports.job_store import JobStore
from services.scheduler.usecases.settle import SettleFinished, settled_write


@dataclass(frozen=True, slots=True)
class CancelExecution:
    """Serves CancelExecution."""

    jobs: JobStore
    executions: ExecutionStore
    settle: SettleFinished
    clock: Clock

    async def __call__(self, caller: Caller, execution_id: str, *, note: str = "") -> Execution:
        """Stop an execution; a final one, or one that is asked to stop already, stays as it is.

        Raises:
            InvalidArgumentError: the note is too long.
            NotFoundError: no such execution within the caller's scope.
            AbortedError: it went from hand to hand during the call.
        """
        check_note(note)
        cancellation = Cancellation("CANCELLED_BY_CALLER", caller.subject, note)
        for _ in range(MAX_TRIES):
            execution = await self.executions.get(caller.scope, execution_id)
            running = execution.state is ExecutionState.RUNNING
            if execution.state.is_final or (running and execution.cancel_reason):
                await self.executions.confirm()
                return execution
            now = truncate_to_millis(self.clock.now())
            if running:
                await self.executions.request_cancel(
                    execution, cancellation, audit=_event(caller, execution, note, now)
                )
            elif await self.executions.cancel_ready(
                execution, cancellation, now, audit=_event(caller, execution, note, now)
            ):
                # If we die here, the sweep settles it.
                cancelled = await self.executions.get(caller.scope, execution_id)
                await self.settle([settled_write(cancelled, now)], await self.jobs.load({execution.job_id}))
                return cancelled
        raise AbortedError(
            "CONCURRENT_CHANGE",
            f"execution {execution_id} kept changing during the call",
            metadata={"executionId": execution_id},
        )


def _event(caller: Caller, execution: Execution, note: str, now: datetime) -> AuditEvent:
    return call_event(caller, now, "execution", execution.execution_id, project_id=execution.project_id, note=note)
