"""Starts the executions that callers ask for: of a job now, or of one that ended, once more.

Both stand outside of the job's overlap policy, for the caller wants them. The id is made of the caller's key, so that a
repeated call finds the first one's execution, and the database decides between calls at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.common.clock import Clock
from libs.common.errors import FailedPreconditionError
from libs.common.ids import new_id
from libs.common.instants import truncate_to_millis
from libs.common.tracing import format_trace_parent, trace_id_of
from services.scheduler.domain.execution import Cause, Execution, Phase, requested_execution_id
from services.scheduler.domain.idempotency import check_idempotency_key, unique_part
from services.scheduler.domain.job import Job, JobState
from services.scheduler.usecases.audit import FieldChange, call_event
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.ports.due_nudge import DueNudge
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.job_store import JobStore


@dataclass(frozen=True, slots=True)
class RequestExecution:
    """Serves RunJob and RetryExecution."""

    jobs: JobStore
    executions: ExecutionStore
    nudge: DueNudge
    clock: Clock

    async def run(
        self, caller: Caller, job_id: str, *, allow_inactive: bool = False, idempotency_key: str = ""
    ) -> Execution:
        """Start an execution of a job now; the same key for the same job returns the first one.

        Raises:
            InvalidArgumentError: the key is no key.
            NotFoundError: no such job within the caller's scope.
            FailedPreconditionError: the job is not ACTIVE, or deleted.
        """
        check_idempotency_key(idempotency_key)
        job = await self.jobs.get(caller.scope, job_id)
        execution_id = requested_execution_id(job_id, unique_part(idempotency_key) if idempotency_key else new_id())
        if idempotency_key and (first := await self._find(execution_id)):
            return first
        _require_runnable(job, allow_inactive=allow_inactive)
        return await self._start(caller, job, execution_id, Cause.MANUAL)

    async def retry(self, caller: Caller, execution_id: str, *, idempotency_key: str = "") -> Execution:
        """Start an execution that repeats a final one; the same key for the same one returns the first repetition.

        Raises:
            InvalidArgumentError: the key is no key.
            NotFoundError: no such execution within the caller's scope, or its job was purged.
            FailedPreconditionError: the execution is not final, or a callback, or its job is deleted.
        """
        check_idempotency_key(idempotency_key)
        repeated = await self.executions.get(caller.scope, execution_id)
        if repeated.callback:
            raise FailedPreconditionError(
                "CALLBACK_NOT_REPEATABLE",
                f"execution {execution_id} is a callback, which is repeated by itself until it is taken",
                metadata={"executionId": execution_id},
            )
        unique = unique_part(execution_id, idempotency_key) if idempotency_key else new_id()
        new_execution_id = requested_execution_id(repeated.job_id, unique)
        if idempotency_key and (first := await self._find(new_execution_id)):
            return first
        if not repeated.state.is_final:
            raise FailedPreconditionError(
                "EXECUTION_NOT_FINAL",
                f"execution {execution_id} is {repeated.state.value}; only one that ended can be repeated",
                metadata={"executionId": execution_id, "state": repeated.state.value},
            )
        job = await self.jobs.get(caller.scope, repeated.job_id)
        # Who repeats one execution means just that, whether or not the job goes on firing.
        _require_runnable(job, allow_inactive=True)
        return await self._start(
            caller,
            job,
            new_execution_id,
            Cause.RETRY_REQUEST,
            retried_execution_id=execution_id,
            slot_time=repeated.slot_time or repeated.fire_time,
        )

    async def _find(self, execution_id: str) -> Execution | None:
        # The id holds the job's, which was read within the caller's scope.
        first = (await self.executions.load([execution_id])).get(execution_id)
        if first is not None:
            await self.executions.confirm()
        return first

    async def _start(
        self,
        caller: Caller,
        job: Job,
        execution_id: str,
        cause: Cause,
        *,
        retried_execution_id: str = "",
        slot_time: datetime | None = None,
    ) -> Execution:
        now, trace_parent = truncate_to_millis(self.clock.now()), format_trace_parent()
        await self.executions.insert_new(
            [
                Execution(
                    execution_id=execution_id,
                    job_id=job.job_id,
                    org_id=job.org_id,
                    project_id=job.definition.project_id,
                    partition=job.partition,
                    cause=cause,
                    fire_time=now,
                    due_time=now,
                    create_time=now,
                    job_revision=job.revision,
                    schedule_revision=job.schedule_revision,
                    # It waits for the tick, like a retry whose time has come; the poll path is its net.
                    phase=Phase.WAITING,
                    wake_time=now,
                    available_time=now,
                    retried_execution_id=retried_execution_id,
                    slot_time=slot_time,
                    trace_parent=trace_parent,
                    trace_id=trace_id_of(trace_parent),
                )
            ],
            audit=call_event(
                caller,
                now,
                "execution",
                execution_id,
                project_id=job.definition.project_id,
                changes=[FieldChange("execution.cause", "", f'"CAUSE_{cause.value}"')],
            ),
        )
        self.nudge.notify(now)
        return await self.executions.get(caller.scope, execution_id)


def _require_runnable(job: Job, *, allow_inactive: bool) -> None:
    deleted = job.state is JobState.DELETED
    if deleted or (job.state is not JobState.ACTIVE and not allow_inactive):
        hint = "" if deleted else "; set allow_inactive to run it anyway"
        raise FailedPreconditionError(
            "WRONG_JOB_STATE",
            f"cannot run job {job.job_id}: it is {job.state.value}{hint}",
            metadata={"jobId": job.job_id, "state": job.state.value, "action": "run"},
        )
