"""Starts an execution because a caller asked for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from libs.common.clock import Clock
from libs.common.errors import FailedPreconditionError
from libs.common.ids import new_id
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.execution import Cause, Execution, Phase, requested_execution_id
from services.scheduler.domain.job import Job, JobState
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.ports import DueNudge, ExecutionStore, JobStore


@dataclass(frozen=True, slots=True)
class RunJob:
    """Serves RunJob. A requested execution stands outside the job's overlap policy: the caller wants it now."""

    jobs: JobStore
    executions: ExecutionStore
    nudge: DueNudge
    clock: Clock

    async def __call__(
        self, caller: Caller, job_id: str, *, allow_inactive: bool = False, idempotency_key: str = ""
    ) -> Execution:
        """Start an execution of a job now; the same key returns the first one.

        Raises:
            NotFoundError: no such job within the caller's scope.
            FailedPreconditionError: the job is not ACTIVE (or is deleted).
        """
        job = await self.jobs.get(caller.scope, job_id)
        _require_runnable(job, allow_inactive=allow_inactive)
        unique = hashlib.sha256(idempotency_key.encode()).hexdigest()[:26] if idempotency_key else new_id()
        execution_id = requested_execution_id(job_id, unique)
        now = truncate_to_millis(self.clock.now())
        await self.executions.insert_new(
            [
                Execution(
                    execution_id=execution_id,
                    job_id=job_id,
                    org_id=job.org_id,
                    project_id=job.definition.project_id,
                    partition=job.partition,
                    cause=Cause.MANUAL,
                    fire_time=now,
                    due_time=now,
                    create_time=now,
                    job_revision=job.revision,
                    schedule_revision=job.schedule_revision,
                    # It waits for the tick, like a retry whose time has come; the poll path is its net.
                    phase=Phase.WAITING,
                    wake_time=now,
                    available_time=now,
                )
            ]
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
            metadata={"jobId": job.job_id, "state": job.state.value},
        )
