"""The calls of ExecutionService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from grpc import aio
from punctual.v1 import execution_service_pb2 as pb
from punctual.v1.execution_pb2 import Execution, Response
from punctual.v1.execution_service_pb2_grpc import ExecutionServiceStub

from libs.client.calls import Calls
from libs.client.paging import Paged
from libs.client.timestamps import timestamp
from libs.client.watching import watch
from libs.common.ids import new_id

ExecutionPages: TypeAlias = Paged[pb.ListExecutionsRequest, pb.ListExecutionsResponse, Execution]


class Executions:
    """Inspects, stops and repeats executions."""

    def __init__(self, channel: aio.Channel, calls: Calls) -> None:
        self._stub = ExecutionServiceStub(channel)
        self._calls = calls

    async def get(self, execution_id: str) -> Execution:
        """Return one execution with its attempts."""
        return await self._calls.unary(self._stub.GetExecution, pb.GetExecutionRequest(execution_id=execution_id))

    def list(
        self,
        *,
        job_id: str = "",
        project_id: str = "",
        states: Iterable[Execution.State.ValueType] = (),
        causes: Iterable[Execution.Cause.ValueType] = (),
        fire_after: datetime | None = None,
        fire_before: datetime | None = None,
        trace_id: str = "",
        page_size: int = 0,
        page_token: str = "",
    ) -> ExecutionPages:
        """List executions, latest fire first, without the bytes of their answers."""
        request = pb.ListExecutionsRequest(
            job_id=job_id,
            project_id=project_id,
            states=states,
            causes=causes,
            fire_after=timestamp(fire_after),
            fire_before=timestamp(fire_before),
            trace_id=trace_id,
            page_size=page_size,
            page_token=page_token,
        )
        return Paged(self._calls, self._stub.ListExecutions, request, lambda page: page.executions)

    def watch(
        self,
        *,
        job_id: str = "",
        project_id: str = "",
        states: Iterable[Execution.State.ValueType] = (),
        resume_token: str = "",
    ) -> AsyncGenerator[pb.WatchExecutionsResponse, None]:
        """Yield changes as they happen, each at least once, over as many streams as it takes.

        Keep the `resume_token` of the last change that was dealt with: given here, it continues after that change.
        """
        request = pb.WatchExecutionsRequest(
            job_id=job_id, project_id=project_id, states=states, resume_token=resume_token
        )
        return watch(self._calls, self._stub.WatchExecutions, request)

    async def cancel(self, execution_id: str, *, note: str = "") -> Execution:
        """Stop an execution: a waiting one at once, a running one as soon as its executor hears of it."""
        request = pb.CancelExecutionRequest(execution_id=execution_id, note=note)
        return await self._calls.unary(self._stub.CancelExecution, request)

    async def retry(self, execution_id: str, *, idempotency_key: str = "") -> Execution:
        """Start an execution that repeats a final one; a fresh idempotency key is sent where the caller gives none."""
        request = pb.RetryExecutionRequest(execution_id=execution_id, idempotency_key=idempotency_key or new_id())
        return await self._calls.unary(self._stub.RetryExecution, request)

    def download_parts(
        self, execution_id: str, *, raw: bool = False
    ) -> AsyncGenerator[pb.DownloadResponseResponse, None]:
        """Yield a stored answer as the server sends it: its description in the first part, bytes in all."""
        request = pb.DownloadResponseRequest(execution_id=execution_id, raw=raw)
        return self._calls.parts(self._stub.DownloadResponse, request)

    async def download(self, execution_id: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a stored answer, as the target sent them."""
        async with aclosing(self.download_parts(execution_id)) as parts:
            async for part in parts:
                if part.chunk:
                    yield part.chunk

    async def download_to(self, execution_id: str, path: Path) -> Response:
        """Write a stored answer to a file, and return its description; the file appears when it is complete."""
        partial = path.with_name(f"{path.name}.part")
        description = Response()
        try:
            with partial.open("wb") as file:
                async with aclosing(self.download_parts(execution_id)) as parts:
                    async for part in parts:
                        description.MergeFrom(part.response)
                        await asyncio.to_thread(file.write, part.chunk)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return description
