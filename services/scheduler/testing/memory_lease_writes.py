"""Leases in memory: grants, renewals and ends, each judged by state, fencing token and the unique slots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.scheduler.domain.begin import MAX_EARLY
from services.scheduler.domain.execution import Attempt, Execution, ExecutionState, Phase
from services.scheduler.testing.checkpoint import Checkpoint, as_stored, operation
from services.scheduler.usecases.ports.execution_writes import FinishWrite, GrantResult, GrantWrite, Lease, WaitWrite

KEPT_ATTEMPTS = 40
SETTLE_GRACE = timedelta(seconds=5)
"""Both as in the real store."""


@dataclass(slots=True)
class Record:
    """What is stored: the execution, and the slots that at most one execution of a job holds each."""

    execution: Execution
    overlap_slot: str = ""
    queue_slot: str = ""


class MemoryLeaseWrites:
    """The lease half of the in-memory execution store."""

    def __init__(self, retention: timedelta, checkpoint: Checkpoint) -> None:
        self._retention = retention
        self._checkpoint = checkpoint
        self._records: dict[str, Record] = {}
        self._recalled: dict[str, Execution] = {}
        """Executions as they were inserted or granted: what a replica may remember of them, or an older state."""

    def _forget(self, execution_ids: Iterable[str]) -> None:
        for execution_id in execution_ids:
            self._recalled.pop(execution_id, None)

    async def grant(self, lease: Lease, grants: Sequence[GrantWrite]) -> GrantResult:
        """Take READY (or lost) executions to RUNNING under new leases."""
        granted: set[str] = set()
        overlapping: set[str] = set()
        async with operation(self._checkpoint, "executions.grant"):
            for grant in grants:
                execution_id = grant.execution.execution_id
                record = self._records.get(execution_id)
                if record is None:
                    continue
                if not _may_be_granted(record.execution, grant, lease):
                    if _is_held_by(record.execution, lease.request_id, grant.execution.fencing_token + 1):
                        granted.add(execution_id)
                elif grant.execution.exclusive and self._is_taken(record, grant.execution.job_id):
                    overlapping.add(execution_id)
                else:
                    self._write_grant(record, lease, grant)
                    self._recalled[execution_id] = record.execution
                    granted.add(execution_id)
        return GrantResult(frozenset(granted), frozenset(overlapping))

    def _is_taken(self, record: Record, job_id: str) -> bool:
        return any(other.overlap_slot == job_id and other is not record for other in self._records.values())

    def _write_grant(self, record: Record, lease: Lease, grant: GrantWrite) -> None:
        stored = record.execution
        lost = grant.lost_attempt
        record.execution = as_stored(
            replace(
                stored,
                state=ExecutionState.RUNNING,
                phase=Phase.LEASED,
                wake_time=lease.expire_time,
                executor_id=lease.executor_id,
                begin_request_id=lease.request_id,
                begin_time=lease.begin_time,
                delivery_path=lease.path,
                job_revision=grant.job_revision,
                wait_reason="",
                fencing_token=stored.fencing_token + 1,
                attempt_number=stored.attempt_number + 1,
                loss_count=stored.loss_count + (lost is not None),
                attempts=_pushed(stored.attempts, lost),
            )
        )
        record.queue_slot = ""
        if grant.execution.exclusive:
            record.overlap_slot = grant.execution.job_id

    async def finish(self, writes: Sequence[FinishWrite]) -> frozenset[str]:
        """End executions; returns the ids that stand so now."""
        standing: set[str] = set()
        self._forget(write.execution_id for write in writes)
        async with operation(self._checkpoint, "executions.finish"):
            for write in writes:
                record = self._records.get(write.execution_id)
                if record is None:
                    continue
                execution = record.execution
                if _may_end(execution, write):
                    self._write_finish(record, write)
                    standing.add(write.execution_id)
                else:
                    token = execution.reported_token if write.is_report else execution.fencing_token
                    if (token, execution.state) == (write.fencing_token, write.state):
                        standing.add(write.execution_id)
        return frozenset(standing)

    def _write_finish(self, record: Record, write: FinishWrite) -> None:
        stored = record.execution
        record.execution = as_stored(
            replace(
                _with_result(stored, write),
                state=write.state,
                state_reason=write.reason,
                end_time=write.end_time,
                expire_time=write.end_time + self._retention,
                reported_token=write.fencing_token if write.is_report else stored.reported_token,
                available_time=None,
                wait_reason="",
                begin_request_id="",
                phase=Phase.SETTLING if write.settle else None,
                wake_time=write.end_time + SETTLE_GRACE if write.settle else None,
            )
        )
        record.overlap_slot = record.queue_slot = ""

    async def wait(self, writes: Sequence[WaitWrite]) -> frozenset[str]:
        """Put executions back to READY; returns the ids for which it was applied, now or before."""
        standing: set[str] = set()
        self._forget(write.execution_id for write in writes)
        async with operation(self._checkpoint, "executions.wait"):
            for write in writes:
                record = self._records.get(write.execution_id)
                if record is None:
                    continue
                execution = record.execution
                if (execution.state, execution.fencing_token) == (ExecutionState.RUNNING, write.fencing_token):
                    record.execution = _put_back(execution, write)
                    standing.add(write.execution_id)
                elif execution.reported_token == write.fencing_token and not execution.state.is_final:
                    standing.add(write.execution_id)
        return frozenset(standing)

    async def extend(self, executor_id: str, leases: Mapping[str, int], expire_time: datetime) -> Mapping[str, str]:
        """Renew leases; returns those that still hold, with the reason of a wanted cancellation or ''."""
        held: dict[str, str] = {}
        async with operation(self._checkpoint, "executions.extend"):
            for execution_id, token in leases.items():
                record = self._records.get(execution_id)
                if record is None:
                    continue
                execution = record.execution
                holder = (ExecutionState.RUNNING, executor_id, token)
                if (execution.state, execution.executor_id, execution.fencing_token) == holder:
                    record.execution = as_stored(replace(execution, wake_time=expire_time))
                    held[execution_id] = execution.cancel_reason
        return held


def _may_be_granted(stored: Execution, grant: GrantWrite, lease: Lease) -> bool:
    if stored.fencing_token != grant.execution.fencing_token:
        return False
    if grant.lost_attempt is not None:
        expired = stored.wake_time is not None and stored.wake_time <= lease.begin_time
        return stored.state is ExecutionState.RUNNING and expired
    available = stored.available_time is not None and stored.available_time <= lease.begin_time + MAX_EARLY
    return stored.state is ExecutionState.READY and available


def _may_end(stored: Execution, write: FinishWrite) -> bool:
    if (stored.state, stored.fencing_token) != (write.expected, write.fencing_token):
        return False
    return not write.lease_lost or (stored.wake_time is not None and stored.wake_time <= write.end_time)


def _is_held_by(stored: Execution, request_id: str, token: int) -> bool:
    holder = (stored.state, stored.begin_request_id, stored.fencing_token)
    return holder == (ExecutionState.RUNNING, request_id, token)


def _put_back(stored: Execution, write: WaitWrite) -> Execution:
    untried = write.attempt is None
    return as_stored(
        replace(
            _with_result(stored, write),
            state=ExecutionState.READY,
            phase=Phase.WAITING,
            wake_time=write.available_time,
            available_time=write.available_time,
            wait_reason=write.reason,
            wait_host=write.wait_host or stored.wait_host,
            reported_token=write.fencing_token,
            begin_request_id="",
            attempt_number=stored.attempt_number - untried,
            deferral_count=stored.deferral_count + (untried and not write.released),
        )
    )


def _with_result(stored: Execution, write: FinishWrite | WaitWrite) -> Execution:
    start_time = stored.start_time
    if write.attempt is not None and write.attempt.start_time is not None:
        start_time = min(start_time or write.attempt.start_time, write.attempt.start_time)
    return replace(
        stored,
        attempts=_pushed(stored.attempts, write.attempt),
        start_time=start_time,
        response=write.response or stored.response,
        lag_micros=stored.lag_micros if write.lag_micros is None else write.lag_micros,
        trace_id=write.trace_id or stored.trace_id,
    )


def _pushed(attempts: Sequence[Attempt], attempt: Attempt | None) -> tuple[Attempt, ...]:
    return (*attempts, *([] if attempt is None else [as_stored(attempt)]))[-KEPT_ATTEMPTS:]
