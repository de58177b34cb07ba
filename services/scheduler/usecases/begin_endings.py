"""What is written of executions that end where they were to begin, or that lost their lease."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.scheduler.domain.execution import Attempt, Execution, ExecutionState, Outcome
from services.scheduler.usecases.ports.execution_writes import FinishWrite

UNREADABLE_GRACE = timedelta(minutes=10)
"""How long an execution waits for a key that this replica lacks: during a rollout others have it, or will."""


def skip(execution: Execution, reason: str, now: datetime) -> FinishWrite:
    """Return the end of an execution that will not run, for a reason."""
    return FinishWrite(
        execution_id=execution.execution_id,
        fencing_token=execution.fencing_token,
        expected=ExecutionState.READY,
        # What was tried, or asked to stop, was no fire that the scheduler left out.
        state=(
            ExecutionState.CANCELLED if execution.attempt_number or execution.cancel_reason else ExecutionState.SKIPPED
        ),
        reason=reason,
        end_time=now,
        settle=False,
        cause=execution.cause,
    )


def end_lost(execution: Execution, state: ExecutionState, reason: str, now: datetime) -> FinishWrite:
    """Return the end of an execution whose lease ran out for the last time."""
    return FinishWrite(
        execution_id=execution.execution_id,
        fencing_token=execution.fencing_token,
        expected=ExecutionState.RUNNING,
        state=state,
        reason=reason,
        end_time=now,
        settle=True,
        attempt=lost_attempt(execution, now, reason),
        lease_lost=True,
        cause=execution.cause,
    )


def waited_for_key(execution: Execution, now: datetime) -> bool:
    """Return whether an execution has waited for its secrets as long as it may."""
    return now >= (execution.available_time or execution.due_time) + UNREADABLE_GRACE


def end_unreadable(execution: Execution, now: datetime) -> FinishWrite:
    """Return the end of an execution whose secrets nobody could read."""
    return FinishWrite(
        execution_id=execution.execution_id,
        fencing_token=execution.fencing_token,
        expected=execution.state,
        state=ExecutionState.FAILED,
        reason="SECRET_UNREADABLE",
        end_time=now,
        settle=True,
        lease_lost=execution.state is ExecutionState.RUNNING,
        cause=execution.cause,
    )


def lost_attempt(execution: Execution, now: datetime, decision: str) -> Attempt:
    """Return the record of an attempt whose lease ran out, and what was decided then."""
    return Attempt(
        number=execution.attempt_number,
        outcome=Outcome.LOST,
        begin_time=execution.begin_time or execution.due_time,
        end_time=now,
        executor_id=execution.executor_id,
        fencing_token=execution.fencing_token,
        decision=decision,
        error_reason="EXECUTOR_LOST",
        error_message="the executor died or lost its lease; whether the request was sent is not known",
    )
