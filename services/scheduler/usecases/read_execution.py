"""Reads one execution with what it sends: the prompt belongs to the job, the answer to the record."""

from __future__ import annotations

from dataclasses import dataclass, replace

from libs.common.errors import FailedPreconditionError, NotFoundError
from services.scheduler.domain.execution import Execution, ExecutionState, StoredResponse
from services.scheduler.domain.job import Job
from services.scheduler.domain.request_headers import MASK
from services.scheduler.usecases.caller import Caller, Permission
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.job_store import JobStore


@dataclass(frozen=True, slots=True)
class ReadExecution:
    """Serves GetExecution and DownloadResponse."""

    jobs: JobStore
    executions: ExecutionStore

    async def shown(self, caller: Caller, execution_id: str) -> tuple[Execution, str]:
        """Return an execution and its prompt, as much of both as the caller may see.

        Raises:
            NotFoundError: no such execution within the caller's scope.
        """
        execution = await self.executions.get(caller.scope, execution_id)
        if not caller.may(Permission.EXECUTIONS_CONTENT):
            return _without_content(execution), MASK
        try:
            job = await self.jobs.get(caller.scope, execution.job_id)
        except NotFoundError:
            return execution, ""
        return execution, _prompt(execution, job)

    async def answer(self, caller: Caller, execution_id: str) -> StoredResponse:
        """Return an execution's answer.

        Raises:
            NotFoundError: no such execution within the caller's scope.
            FailedPreconditionError: it has no answer.
        """
        execution = await self.executions.get(caller.scope, execution_id)
        if execution.response is None:
            raise FailedPreconditionError(
                "RESPONSE_NOT_AVAILABLE",
                f"execution {execution_id} has no stored answer",
                metadata={"executionId": execution_id, "state": execution.state.value},
            )
        return execution.response


def _prompt(execution: Execution, job: Job) -> str:
    """Return the prompt that an execution runs or ran; nothing where the job has another one by now."""
    waits = execution.state is ExecutionState.READY
    return job.definition.target.prompt if waits or execution.job_revision >= job.definition_revision else ""


def _without_content(execution: Execution) -> Execution:
    if execution.response is None:
        return execution
    return replace(execution, response=replace(execution.response, body=b"", head=b""))
