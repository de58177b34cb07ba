"""ExecutionService: the public API of executions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from punctual.v1 import execution_pb2, execution_service_pb2_grpc
from punctual.v1 import execution_service_pb2 as pb

from libs.common.errors import FailedPreconditionError, NotFoundError
from libs.common.instants import from_epoch_millis, to_epoch_millis
from services.scheduler.adapters.rpc.answer_chunks import answer_chunks, single_part
from services.scheduler.adapters.rpc.authentication import Context, EstablishedCaller
from services.scheduler.adapters.rpc.enum_values import choose
from services.scheduler.adapters.rpc.execution_mapping import CAUSES, STATES, from_execution, from_response
from services.scheduler.adapters.rpc.job_requests import required
from services.scheduler.adapters.rpc.page_tokens import decode_page_token, encode_page_token, fitting, page_size_of
from services.scheduler.adapters.rpc.times import to_instant
from services.scheduler.domain.execution import StoredResponse
from services.scheduler.usecases.cancel_execution import CancelExecution
from services.scheduler.usecases.ports.blob_store import BlobStore
from services.scheduler.usecases.ports.execution_feed import WatchFilter
from services.scheduler.usecases.ports.execution_store import ExecutionFilter, ExecutionStore
from services.scheduler.usecases.read_execution import ReadExecution
from services.scheduler.usecases.requested_execution import RequestExecution
from services.scheduler.usecases.watch_executions import WatchExecutions


@dataclass(frozen=True, slots=True)
class ExecutionUseCases:
    """What the service calls."""

    executions: ExecutionStore
    read: ReadExecution
    cancel: CancelExecution
    request: RequestExecution
    watch: WatchExecutions
    blobs: BlobStore


class ExecutionService(execution_service_pb2_grpc.ExecutionServiceServicer):
    """Maps messages to use cases; authentication is the first line of every method."""

    def __init__(self, use_cases: ExecutionUseCases, authenticator: EstablishedCaller) -> None:
        self._do = use_cases
        self._authenticator = authenticator

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> execution_pb2.Execution:
        """Return one execution."""
        caller = await self._authenticator.authenticate(context)
        execution, prompt = await self._do.read.shown(caller, required(request.execution_id, "execution_id"))
        return from_execution(execution, prompt=prompt)

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """Return a page of executions."""
        caller = await self._authenticator.authenticate(context)
        size = page_size_of(request)
        key = decode_page_token(request, (int, str))
        after = (from_epoch_millis(int(key[0])), str(key[1])) if key else None
        executions = await self._do.executions.find_page(caller.scope, _to_filter(request), after=after, limit=size + 1)
        shown = fitting(from_execution(execution) for execution in executions[:size])
        token = ""
        if len(executions) > len(shown):
            last = executions[len(shown) - 1]
            token = encode_page_token([to_epoch_millis(last.fire_time), last.execution_id], request)
        return pb.ListExecutionsResponse(executions=shown, next_page_token=token)

    async def WatchExecutions(
        self, request: pb.WatchExecutionsRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionsResponse]:
        """Stream changes."""
        caller = await self._authenticator.authenticate(context)
        where = WatchFilter(
            job_id=request.job_id,
            project_id=request.project_id,
            states=frozenset(choose(state, STATES, None, "states") for state in set(request.states)),
        )
        async for change in self._do.watch(caller, where, request.resume_token, self._authenticator.readmit):
            yield pb.WatchExecutionsResponse(
                execution=from_execution(change.execution) if change.execution else None,
                resume_token=change.resume_token,
            )

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Context) -> execution_pb2.Execution:
        """Stop an execution."""
        caller = await self._authenticator.authenticate(context)
        execution_id = required(request.execution_id, "execution_id")
        return from_execution(await self._do.cancel(caller, execution_id, note=request.note), content=False)

    async def RetryExecution(self, request: pb.RetryExecutionRequest, context: Context) -> execution_pb2.Execution:
        """Repeat an execution."""
        caller = await self._authenticator.authenticate(context)
        execution_id = required(request.execution_id, "execution_id")
        execution = await self._do.request.retry(caller, execution_id, idempotency_key=request.idempotency_key)
        return from_execution(execution, content=False)

    async def DownloadResponse(
        self, request: pb.DownloadResponseRequest, context: Context
    ) -> AsyncIterator[pb.DownloadResponseResponse]:
        """Stream an answer."""
        caller = await self._authenticator.authenticate(context)
        answer = await self._do.read.answer(caller, required(request.execution_id, "execution_id"))
        chunks = answer_chunks(
            self._stored_bytes(answer), encoding=answer.encoding, size_bytes=answer.stored_size_bytes, raw=request.raw
        )
        yield pb.DownloadResponseResponse(
            response=from_response(answer, content=False), storage_encoding=answer.encoding if request.raw else ""
        )
        try:
            async for chunk in chunks:
                yield pb.DownloadResponseResponse(chunk=chunk)
        except NotFoundError as error:
            # The execution expired since it was read, or the store of answers lost it.
            raise FailedPreconditionError(
                "RESPONSE_NOT_AVAILABLE",
                f"the answer of execution {request.execution_id} is gone",
                metadata={"executionId": request.execution_id},
            ) from error

    def _stored_bytes(self, answer: StoredResponse) -> AsyncIterator[bytes]:
        return self._do.blobs.open_stream(answer.blob_id) if answer.blob_id else single_part(answer.body)


def _to_filter(request: pb.ListExecutionsRequest) -> ExecutionFilter:
    return ExecutionFilter(
        job_id=request.job_id,
        project_id=request.project_id,
        states=frozenset(choose(state, STATES, None, "states") for state in set(request.states)),
        causes=frozenset(choose(cause, CAUSES, None, "causes") for cause in set(request.causes)),
        fire_after=to_instant(request.fire_after, "fire_after") if request.HasField("fire_after") else None,
        fire_before=to_instant(request.fire_before, "fire_before") if request.HasField("fire_before") else None,
        trace_id=request.trace_id,
    )
