"""ExecutionService: the public API of executions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TypeVar

from punctual.v1 import execution_pb2, execution_service_pb2_grpc
from punctual.v1 import execution_service_pb2 as pb

from libs.common.errors import InvalidArgumentError, UnimplementedError
from libs.common.instants import from_epoch_millis, to_epoch_millis
from services.scheduler.adapters.rpc.authentication import Authenticator, Context
from services.scheduler.adapters.rpc.execution_mapping import CAUSES, STATES, from_execution
from services.scheduler.adapters.rpc.page_tokens import decode_page_token, encode_page_token, page_size_of
from services.scheduler.adapters.rpc.times import to_instant
from services.scheduler.usecases.ports import ExecutionFilter, ExecutionStore

_Value = TypeVar("_Value")


class ExecutionService(execution_service_pb2_grpc.ExecutionServiceServicer):
    """Maps messages to the store; authentication is the first line of every method."""

    def __init__(self, executions: ExecutionStore, authenticator: Authenticator) -> None:
        self._executions = executions
        self._authenticator = authenticator

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> execution_pb2.Execution:
        """Return one execution."""
        caller = await self._authenticator.authenticate(context)
        if not request.execution_id:
            raise InvalidArgumentError.of("execution_id", "REQUIRED", "is required")
        return from_execution(await self._executions.get(caller.scope, request.execution_id))

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """Return a page of executions."""
        caller = await self._authenticator.authenticate(context)
        size = page_size_of(request)
        key = decode_page_token(request)
        after = (from_epoch_millis(int(key[0])), str(key[1])) if key else None
        executions = await self._executions.find_page(caller.scope, _to_filter(request), after=after, limit=size + 1)
        token = ""
        if len(executions) > size:
            last = executions[size - 1]
            token = encode_page_token([to_epoch_millis(last.fire_time), last.execution_id], request)
        return pb.ListExecutionsResponse(
            executions=[from_execution(execution) for execution in executions[:size]], next_page_token=token
        )

    def WatchExecutions(
        self, request: pb.WatchExecutionsRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionsResponse]:
        """Stream changes."""
        raise _later("WatchExecutions")

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Context) -> execution_pb2.Execution:
        """Stop an execution."""
        raise _later("CancelExecution")

    async def RetryExecution(self, request: pb.RetryExecutionRequest, context: Context) -> execution_pb2.Execution:
        """Repeat an execution."""
        raise _later("RetryExecution")

    def DownloadResponse(
        self, request: pb.DownloadResponseRequest, context: Context
    ) -> AsyncIterator[pb.DownloadResponseResponse]:
        """Stream an answer."""
        raise _later("DownloadResponse")


def _to_filter(request: pb.ListExecutionsRequest) -> ExecutionFilter:
    return ExecutionFilter(
        job_id=request.job_id,
        project_id=request.project_id,
        states=frozenset(_known(state, STATES, "states") for state in request.states),
        causes=frozenset(_known(cause, CAUSES, "causes") for cause in request.causes),
        fire_after=to_instant(request.fire_after, "fire_after") if request.HasField("fire_after") else None,
        fire_before=to_instant(request.fire_before, "fire_before") if request.HasField("fire_before") else None,
        trace_id=request.trace_id,
    )


def _known(number: int, known: Mapping[_Value, int], field: str) -> _Value:
    for value, its_number in known.items():
        if its_number == number:
            return value
    raise InvalidArgumentError.of(field, "UNKNOWN_ENUM_VALUE", f"{number} is not a known value")


def _later(method: str) -> UnimplementedError:
    return UnimplementedError("METHOD_NOT_IMPLEMENTED", f"{method} is not there yet", metadata={"method": method})
