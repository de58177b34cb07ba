# ruff: noqa: N802 - the names of the handlers are those of the RPCs
"""Server and client over a real socket: errors cross with their details, health and reflection answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.internal.v1.attempt_service_pb2_grpc import (
    AttemptServiceServicer,
    AttemptServiceStub,
    add_AttemptServiceServicer_to_server,
)
from punctual.v1 import execution_service_pb2 as public_pb
from punctual.v1.execution_service_pb2_grpc import ExecutionServiceStub

from libs.common.errors import (
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    OutOfRangeError,
    ResourceExhaustedError,
    UnavailableError,
    UnimplementedError,
)
from libs.common.rpc.client import open_channel
from libs.common.rpc.health import READINESS, HealthReporter
from libs.common.rpc.interceptors import ErrorInterceptor
from libs.common.rpc.server import RpcServer

Observed = tuple[str, grpc.StatusCode, float]

SERVICE = "punctual.internal.v1.AttemptService"


class LostDatabaseError(Exception):
    """What a database library might raise."""


class Servicer(AttemptServiceServicer):
    async def BeginAttempts(self, request, context):
        raise InvalidArgumentError([FieldViolation("execution_ids", "TOO_MANY", "at most 1,000")])

    async def ExtendLeases(self, request, context):
        raise RuntimeError("canary")

    async def ReportAttempts(self, request, context):
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "its own")

    async def PollReady(self, request, context):
        raise LostDatabaseError

    async def UploadResponse(self, request_iterator, context):
        size = sum([len(part.chunk) async for part in request_iterator])
        if size > 100:
            raise ResourceExhaustedError("TOO_LARGE", "too large", retry_after_seconds=2)
        return pb.UploadResponseResponse(size_bytes=size)

    async def ReportTargetHosts(self, request, context):
        await asyncio.Event().wait()


class Downloads(grpc.GenericRpcHandler):
    """ExecutionService.DownloadResponse: one part, then a failure."""

    def service(self, handler_call_details):
        if handler_call_details.method != "/punctual.v1.ExecutionService/DownloadResponse":
            return None

        async def download(request, context):
            yield public_pb.DownloadResponseResponse(chunk=b"part")
            raise UnavailableError("BLOB_STORE_AWAY", "later")

        return grpc.unary_stream_rpc_method_handler(
            download,
            public_pb.DownloadResponseRequest.FromString,
            public_pb.DownloadResponseResponse.SerializeToString,
        )


def translate(error: Exception) -> UnavailableError | None:
    return UnavailableError("NO_DATABASE", "no primary") if isinstance(error, LostDatabaseError) else None


async def at_least_one(observed: list[Observed]) -> list[Observed]:
    """Return what was observed; the server notes the end of a call after it has answered."""
    async with asyncio.timeout(2):
        while not observed:
            await asyncio.sleep(0)
    return observed


@pytest.fixture
def observed() -> list[Observed]:
    return []


@pytest.fixture
def health() -> HealthReporter:
    return HealthReporter(interval_seconds=0.02)


@pytest.fixture
async def server(
    observed: list[tuple[str, grpc.StatusCode, float]], health: HealthReporter
) -> AsyncIterator[RpcServer]:
    interceptor = ErrorInterceptor(translate=translate, observe=lambda *call: observed.append(call))
    server = RpcServer("127.0.0.1:0", health=health, interceptors=[interceptor], reflection_services=[SERVICE])
    server.add(add_AttemptServiceServicer_to_server, Servicer())
    server.add(lambda handler, to: to.add_generic_rpc_handlers((handler,)), Downloads())
    await server.start()
    yield server
    await server.stop(0)


@pytest.fixture
async def channel(server: RpcServer) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(f"127.0.0.1:{server.port}", deadline_seconds=2)
    yield channel
    await channel.close()


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> AttemptServiceStub:
    return AttemptServiceStub(channel)


async def test_error_arrives_as_it_was_raised(stub, observed) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        await stub.BeginAttempts(pb.BeginAttemptsRequest())
    assert raised.value.violations == (FieldViolation("execution_ids", "TOO_MANY", "at most 1,000"),)
    [(method, code, seconds)] = await at_least_one(observed)
    assert (method, code) == (f"/{SERVICE}/BeginAttempts", grpc.StatusCode.INVALID_ARGUMENT)
    assert 0 < seconds < 2


async def test_callers_in_any_language_see_google_rpc_details(server: RpcServer) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await AttemptServiceStub(plain).BeginAttempts(
                pb.BeginAttemptsRequest(), metadata=(("x-request-id", "mine-1"),)
            )
    trailing = dict(raised.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, trailing["x-request-id"]) == ("TOO_MANY", "punctual", "mine-1")


async def test_bad_request_id_is_replaced(server: RpcServer) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain:
        call = AttemptServiceStub(plain).BeginAttempts(pb.BeginAttemptsRequest(), metadata=(("x-request-id", "a b!"),))
        trailing = dict(await call.trailing_metadata())
    assert len(trailing["x-request-id"]) == 26


async def test_defect_leaves_as_an_id_and_is_logged_under_it(stub) -> None:
    with structlog.testing.capture_logs() as lines, pytest.raises(InternalError) as raised:
        await stub.ExtendLeases(pb.ExtendLeasesRequest())
    assert raised.value.reason == "INTERNAL"
    assert "canary" not in f"{raised.value} {raised.value.metadata}"
    [line] = [line for line in lines if line["event"] == "rpc.failed"]
    assert line["error_id"] == raised.value.metadata["errorId"]
    assert repr(line["exc_info"]) == "RuntimeError('canary')"


async def test_library_error_is_translated(stub) -> None:
    with pytest.raises(UnavailableError) as raised:
        await stub.PollReady(pb.PollReadyRequest())
    assert raised.value.reason == "NO_DATABASE"


async def test_abort_by_a_handler_passes(stub, observed) -> None:
    with pytest.raises(OutOfRangeError, match="its own"):
        await stub.ReportAttempts(pb.ReportAttemptsRequest())
    assert (await at_least_one(observed))[0][1] is grpc.StatusCode.OUT_OF_RANGE


async def test_unknown_method_is_unimplemented(channel, observed) -> None:
    with pytest.raises(UnimplementedError) as raised:
        await ExecutionServiceStub(channel).GetExecution(public_pb.GetExecutionRequest())
    assert raised.value.reason == "UNKNOWN_METHOD"
    assert raised.value.metadata == {"method": "/punctual.v1.ExecutionService/GetExecution"}
    assert (await at_least_one(observed))[0][:2] == ("unknown", grpc.StatusCode.UNIMPLEMENTED)


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
async def test_bytes_that_are_no_message_are_the_callers_mistake(channel, kind: str) -> None:
    method = "UploadResponse" if kind == "stream_unary" else "BeginAttempts"
    call = getattr(channel, kind)(f"/{SERVICE}/{method}")

    async def parts() -> AsyncIterator[bytes]:
        yield pb.UploadResponseRequest(chunk=b"part").SerializeToString()
        yield b"\xff\xff"

    with pytest.raises(InvalidArgumentError) as raised:
        await call(parts() if kind == "stream_unary" else b"\xff\xff")
    assert (raised.value.reason, raised.value.violations[0].field) == ("UNREADABLE_MESSAGE", "request")


async def test_upload_answers_or_raises(stub) -> None:
    async def parts(count: int) -> AsyncIterator[pb.UploadResponseRequest]:
        for _ in range(count):
            yield pb.UploadResponseRequest(chunk=b"0123456789")

    assert (await stub.UploadResponse(parts(3))).size_bytes == 30
    with pytest.raises(ResourceExhaustedError) as raised:
        await stub.UploadResponse(parts(30))
    assert (raised.value.reason, raised.value.retry_after_seconds) == ("TOO_LARGE", 2)


async def test_download_raises_after_its_last_part(channel) -> None:
    parts = aiter(ExecutionServiceStub(channel).DownloadResponse(public_pb.DownloadResponseRequest()))
    assert (await anext(parts)).chunk == b"part"
    with pytest.raises(UnavailableError) as raised:
        await anext(parts)
    assert raised.value.reason == "BLOB_STORE_AWAY"


async def test_call_without_a_deadline_gets_one(server: RpcServer) -> None:
    channel = open_channel(f"127.0.0.1:{server.port}", deadline_seconds=0.05)
    with pytest.raises(UnavailableError) as raised:
        await AttemptServiceStub(channel).ReportTargetHosts(pb.ReportTargetHostsRequest())
    assert raised.value.reason == "DEADLINE_EXCEEDED"
    await channel.close()


async def test_absent_peer_is_unavailable_and_found_when_it_comes(unused_tcp_port: int) -> None:
    address = f"127.0.0.1:{unused_tcp_port}"
    channel = open_channel(address)
    stub = AttemptServiceStub(channel)
    with pytest.raises(UnavailableError):
        await stub.UploadResponse(_nothing())
    server = RpcServer(address, interceptors=[ErrorInterceptor()])
    server.add(add_AttemptServiceServicer_to_server, Servicer())
    await server.start()
    assert (await stub.UploadResponse(_nothing(), wait_for_ready=True)).size_bytes == 0
    await channel.close()
    await server.stop(0)


async def _nothing() -> AsyncIterator[pb.UploadResponseRequest]:
    return
    yield


async def test_taken_port_is_refused(server: RpcServer) -> None:
    with pytest.raises(RuntimeError):
        await RpcServer(f"127.0.0.1:{server.port}").start()


async def test_message_above_the_limit_is_refused(server: RpcServer, channel, stub) -> None:
    with pytest.raises(ResourceExhaustedError):
        await stub.BeginAttempts(pb.BeginAttemptsRequest(executor_id="x" * (4 * 1024 * 1024 + 1)))


async def test_health_follows_the_checks_and_drains(health: HealthReporter, channel) -> None:
    states = health_pb2.HealthCheckResponse
    reason: list[str | None] = [None]
    health.add_check("database", READINESS, lambda: reason[0])
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=5).__aiter__()

    assert (await anext(watch)).status == states.SERVING
    reason[0] = "no primary"
    assert (await anext(watch)).status == states.NOT_SERVING
    assert health.reasons[READINESS] == ("database: no primary",)
    reason[0] = None
    assert (await anext(watch)).status == states.SERVING
    await health.drain()
    assert (await anext(watch)).status == states.NOT_SERVING

    async def check(service: str) -> int:
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status

    assert [await check(name) for name in ("", "readiness", "liveness")] == [
        states.NOT_SERVING,
        states.NOT_SERVING,
        states.SERVING,
    ]


async def test_check_that_raises_is_a_failing_one() -> None:
    health = HealthReporter()
    health.add_check("broken", READINESS, lambda: str(1 / 0))
    await health.evaluate()
    assert health.reasons[READINESS] == ("broken: the check itself failed: ZeroDivisionError",)
    with pytest.raises(ValueError, match="belong"):
        health.add_check("x", "other", lambda: None)


async def test_reflection_lists_the_services(channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    async for answer in call:
        names = {service.name for service in answer.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
