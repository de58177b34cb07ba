"""The stores as the service runs them: what they wrote is counted for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from services.scheduler.adapters.metrics.execution_metrics import ExecutionMetrics
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.execution_store import MongoExecutionStore
from services.scheduler.adapters.mongo.header_secrets import HeaderSecrets
from services.scheduler.adapters.mongo.job_store import MongoJobStore
from services.scheduler.domain.execution import Execution, ExecutionState
from services.scheduler.domain.job import JobState
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.ports.execution_store import Cancellation
from services.scheduler.usecases.ports.execution_writes import FinishWrite, GrantResult, GrantWrite, Lease, WaitWrite


class CountedExecutionStore(MongoExecutionStore):
    """Counts what becomes of executions."""

    def __init__(self, retention: timedelta, outbox: AuditOutbox, metrics: ExecutionMetrics) -> None:
        super().__init__(retention, outbox)
        self._metrics = metrics

    async def insert_new(self, executions: Sequence[Execution], *, audit: AuditEvent | None = None) -> None:
        """Store executions durably."""
        await super().insert_new(executions, audit=audit)
        self._metrics.inserted(executions)

    async def grant(self, lease: Lease, grants: Sequence[GrantWrite]) -> GrantResult:
        """Take executions to RUNNING under new leases."""
        result = await super().grant(lease, grants)
        written = (grant for grant in grants if grant.lost_attempt and grant.execution.execution_id in result.granted)
        self._metrics.begun(
            lease.path, len(result.granted), [grant.lost_attempt for grant in written if grant.lost_attempt]
        )
        return result

    async def finish(self, writes: Sequence[FinishWrite]) -> frozenset[str]:
        """End executions."""
        finished = await super().finish(writes)
        self._metrics.finished(write for write in writes if write.execution_id in finished)
        return finished

    async def wait(self, writes: Sequence[WaitWrite]) -> frozenset[str]:
        """Put executions back to READY."""
        waiting = await super().wait(writes)
        self._metrics.waiting(write for write in writes if write.execution_id in waiting)
        return waiting

    async def cancel_ready(
        self, execution: Execution, cancellation: Cancellation, now: datetime, *, audit: AuditEvent | None = None
    ) -> bool:
        """End a READY execution as CANCELLED."""
        cancelled = await super().cancel_ready(execution, cancellation, now, audit=audit)
        if cancelled:
            self._metrics.cancelled(execution)
        return cancelled

    def _swept(self, state: ExecutionState, reason: str, count: int) -> None:
        self._metrics.swept(state, reason, count)

    def _passed_over(self, collection: str) -> None:
        self._metrics.unreadable(collection)


class CountedJobStore(MongoJobStore):
    """Counts the jobs that the scheduler itself takes out of service, and those that it cannot read."""

    def __init__(self, secrets: HeaderSecrets, outbox: AuditOutbox, metrics: ExecutionMetrics) -> None:
        super().__init__(secrets, outbox)
        self._metrics = metrics

    async def stop(
        self,
        job_id: str,
        state: JobState,
        reason: str,
        note: str,
        now: datetime,
        *,
        ended: datetime | None = None,
        audit: AuditEvent | None = None,
    ) -> bool:
        """Take an ACTIVE job to PAUSED or FAILED on the scheduler's own decision."""
        stopped = await super().stop(job_id, state, reason, note, now, ended=ended, audit=audit)
        if stopped:
            self._metrics.stopped(state, reason)
        return stopped

    def _passed_over(self, collection: str) -> None:
        self._metrics.unreadable(collection)
