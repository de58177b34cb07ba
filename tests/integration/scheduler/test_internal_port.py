# ruff: noqa: N802 - the names of the handlers are those of the RPCs
"""The internal port over a real socket: which certificate opens which methods, and how certificates are renewed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from punctual.internal.v1 import (
    attempt_service_pb2,
    attempt_service_pb2_grpc,
    dispatch_service_pb2,
    dispatch_service_pb2_grpc,
)

from libs.common.errors import PermissionDeniedError, PunctualError, UnauthenticatedError, UnavailableError
from libs.common.rpc.client import open_channel
from libs.common.rpc.interceptors import ErrorInterceptor
from libs.common.rpc.reloading_channel import open_internal_channel
from libs.common.rpc.server import RpcServer
from libs.common.rpc.tls import CertificateFiles
from libs.common.testing.fake_clock import FakeClock
from services.scheduler.access import Access
from services.scheduler.access_settings import AccessSettings
from services.scheduler.testing.memory_api_key_store import MemoryApiKeyStore
from tests.support.certificates import Authority


class Dispatch(dispatch_service_pb2_grpc.DispatchServiceServicer):
    async def AcquireDue(self, request, context):
        return dispatch_service_pb2.AcquireDueResponse()


class Attempts(attempt_service_pb2_grpc.AttemptServiceServicer):
    async def ExtendLeases(self, request, context):
        return attempt_service_pb2.ExtendLeasesResponse()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def reason_of_refusal(call: Any, kind: type[PunctualError] = UnauthenticatedError) -> str:
    with pytest.raises(kind) as raised:
        await call
    return raised.value.reason


class InternalPort:
    """The internal port, and calls to it with one certificate or another."""

    def __init__(self, port: int, authority: Authority, files: CertificateFiles, folder: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self.authority = authority
        self.files = files
        self.folder = folder

    def certificate(self, *names: str, authority: Authority | None = None, **wanted: Any) -> CertificateFiles:
        issued = (authority or self.authority).issue(*names, **wanted)
        return issued.write(self.folder / "client", self.authority.certificate)

    async def call(self, files: CertificateFiles | None, service: str = "attempts") -> None:
        async with open_internal_channel(self.address, files, deadline_seconds=5) as channel:
            await call_over(channel, service)


async def call_over(channel: grpc.aio.Channel, service: str) -> None:
    if service == "attempts":
        attempts = attempt_service_pb2_grpc.AttemptServiceStub(channel)
        await attempts.ExtendLeases(attempt_service_pb2.ExtendLeasesRequest())
    else:
        dispatch = dispatch_service_pb2_grpc.DispatchServiceStub(channel)
        await dispatch.AcquireDue(dispatch_service_pb2.AcquireDueRequest())


@pytest.fixture
async def internal(authority: Authority, tmp_path: Path) -> AsyncIterator[InternalPort]:
    files = authority.issue("scheduler").write(tmp_path / "server", authority.certificate)
    settings = AccessSettings(
        auth_mode="production",
        allow_plaintext=True,
        internal_tls_certificate=files.certificate,
        internal_tls_key=files.key,
        internal_tls_ca=files.authority,
        internal_executor_names=("executor", "spiffe://punctual.test/executor"),
    )
    access = Access(settings, MemoryApiKeyStore(), FakeClock())
    server = RpcServer(
        "127.0.0.1:0",
        interceptors=[ErrorInterceptor(), *access.internal_interceptors()],
        credentials=access.internal_credentials(),
    )
    server.add(dispatch_service_pb2_grpc.add_DispatchServiceServicer_to_server, Dispatch())
    server.add(attempt_service_pb2_grpc.add_AttemptServiceServicer_to_server, Attempts())
    await server.start()
    yield InternalPort(server.port, authority, files, tmp_path)
    await server.stop(0)


@pytest.mark.parametrize(
    ("name", "service"),
    [("executor", "attempts"), ("spiffe://punctual.test/executor", "attempts"), ("dispatcher", "dispatch")],
)
async def test_service_calls_its_own_methods(internal: InternalPort, name: str, service: str) -> None:
    await internal.call(internal.certificate(name), service)


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("dispatcher", "attempts"),
        ("executor", "dispatch"),
        ("spiffe://punctual.test/executor", "dispatch"),
        ("executor.evil.test", "attempts"),
        ("spiffe://evil.test/executor", "attempts"),
        ("scheduler", "attempts"),
    ],
)
async def test_right_authority_but_wrong_service_is_refused(internal: InternalPort, name: str, service: str) -> None:
    call = internal.call(internal.certificate(name), service)
    assert await reason_of_refusal(call, PermissionDeniedError) == "WRONG_SERVICE"


async def test_common_name_is_nobody(internal: InternalPort) -> None:
    call = internal.call(internal.certificate(common_name="executor"))
    assert await reason_of_refusal(call) == "NO_CERTIFICATE"


async def test_plaintext_is_refused(internal: InternalPort) -> None:
    await reason_of_refusal(internal.call(None), UnavailableError)


async def test_client_without_certificate_is_refused(internal: InternalPort) -> None:
    credentials = grpc.ssl_channel_credentials(internal.authority.certificate)
    async with open_channel(internal.address, credentials=credentials, deadline_seconds=5) as channel:
        await reason_of_refusal(call_over(channel, "attempts"), UnavailableError)


async def test_certificate_of_another_authority_is_refused(internal: InternalPort) -> None:
    # Of the same name: it is the key that counts.
    files = internal.certificate("executor", authority=Authority())
    await reason_of_refusal(internal.call(files), UnavailableError)


@pytest.mark.parametrize("valid_days", [(-3, -1), (1, 3)], ids=["expired", "not-yet"])
async def test_certificate_out_of_its_time_is_refused(internal: InternalPort, valid_days: tuple[int, int]) -> None:
    await reason_of_refusal(internal.call(internal.certificate("executor", valid_days=valid_days)), UnavailableError)


async def test_server_of_another_authority_is_not_trusted(internal: InternalPort) -> None:
    files = internal.certificate("executor")
    assert files.authority is not None
    files.authority.write_bytes(Authority().certificate)
    await reason_of_refusal(internal.call(files), UnavailableError)


async def test_server_shows_its_renewed_certificate_to_new_connections(internal: InternalPort) -> None:
    client = internal.certificate("executor")
    await internal.call(client)
    other = Authority("renewed authority")
    other.issue("scheduler").write(internal.files.certificate.parent, other.certificate)
    await reason_of_refusal(internal.call(client), UnavailableError)
    renewed = other.issue("executor").write(internal.folder / "renewed", other.certificate)
    await internal.call(renewed)


async def test_client_uses_its_renewed_certificate_without_a_restart(internal: InternalPort) -> None:
    files = internal.certificate("dispatcher")
    async with open_internal_channel(internal.address, files, deadline_seconds=5) as channel:
        attempts = attempt_service_pb2_grpc.AttemptServiceStub(channel)
        request = attempt_service_pb2.ExtendLeasesRequest()
        assert await reason_of_refusal(attempts.ExtendLeases(request), PermissionDeniedError) == "WRONG_SERVICE"
        internal.certificate("executor")
        await attempts.ExtendLeases(request)
