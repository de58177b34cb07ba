# ruff: noqa: N802 - the names of the handlers are those of the RPCs
"""A server bounds what one call may take: its time, whatever the caller asked for, and its place among others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import ServerInterceptor
from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.internal.v1.attempt_service_pb2_grpc import (
    AttemptServiceServicer,
    AttemptServiceStub,
    add_AttemptServiceServicer_to_server,
)

from libs.common.rpc.deadlines import DeadlineInterceptor
from libs.common.rpc.interceptors import ErrorInterceptor
from libs.common.rpc.server import RpcServer


class Servicer(AttemptServiceServicer):
    """Waits for as long as the test lets it."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()

    async def PollReady(self, request, context):
        self.entered.set()
        await self.go_on.wait()
        return pb.AttemptBatch()

    async def ExtendLeases(self, request, context):
        raise TimeoutError

    async def UploadResponse(self, request_iterator, context):
        await self.go_on.wait()
        return pb.UploadResponseResponse()


@pytest.fixture
async def servicer() -> Servicer:
    return Servicer()


@asynccontextmanager
async def served(servicer: Servicer, *layers: ServerInterceptor, calls: int | None = None) -> AsyncIterator[Any]:
    server = RpcServer("127.0.0.1:0", interceptors=[ErrorInterceptor(), *layers], max_concurrent_rpcs=calls)
    server.add(add_AttemptServiceServicer_to_server, servicer)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield AttemptServiceStub(channel)
    await server.stop(0)


@pytest.fixture
async def stub(servicer: Servicer) -> AsyncIterator[AttemptServiceStub]:
    async with served(servicer, DeadlineInterceptor(default_seconds=0.02, max_seconds=0.05)) as stub:
        yield stub


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_unary_call_ends_at_the_servers_limit(stub, timeout: float | None) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.PollReady(pb.PollReadyRequest(), timeout=timeout)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    status = status_pb2.Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.metadata["seconds"]) == ("DEADLINE_EXCEEDED", "0.02" if timeout is None else "0.05")


async def test_timeout_of_the_handlers_own_is_a_defect(stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ExtendLeases(pb.ExtendLeasesRequest())
    assert raised.value.code() is grpc.StatusCode.INTERNAL


async def test_streams_take_their_time(servicer: Servicer) -> None:
    interceptor = DeadlineInterceptor(default_seconds=0.02, max_seconds=0.05)
    handler = grpc.stream_unary_rpc_method_handler(servicer.UploadResponse)

    async def find(_details: object) -> object:
        return handler

    assert await interceptor.intercept_service(find, None) is handler


async def test_calls_beyond_the_limit_are_refused(servicer: Servicer) -> None:
    async with served(servicer, calls=1) as stub:
        first = stub.PollReady(pb.PollReadyRequest())
        await servicer.entered.wait()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.PollReady(pb.PollReadyRequest())
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        servicer.go_on.set()
        await first
