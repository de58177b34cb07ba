# ruff: noqa: N802 - the names of the handlers are those of the RPCs
"""The public port over a real socket: who gets in by which credential, and that nobody else does.

The service behind the gate only notes who entered; the gate is put together as the scheduler's is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from punctual.v1 import (
    api_key_pb2,
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
)

from libs.common.clock import SystemClock
from libs.common.errors import (
    NotFoundError,
    PermissionDeniedError,
    PunctualError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from libs.common.rpc.client import open_channel
from libs.common.rpc.interceptors import ErrorInterceptor
from libs.common.rpc.server import RpcServer
from libs.common.testing.fake_clock import FakeClock
from services.scheduler.access import Access
from services.scheduler.access_settings import AccessSettings
from services.scheduler.adapters.rpc.api_key_service import ApiKeyService
from services.scheduler.adapters.tokens.key_set import MIN_REFETCH_SECONDS
from services.scheduler.admin import main as admin
from services.scheduler.testing.memory_api_key_store import MemoryApiKeyStore
from services.scheduler.usecases.api_keys import CreateApiKey
from services.scheduler.usecases.caller import Caller
from tests.support.certificates import Authority
from tests.support.token_issuer import AUDIENCE, ISSUER, TokenIssuer, good_claims


class Jobs(job_service_pb2_grpc.JobServiceServicer):
    """Notes who got in."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.entered: list[Caller] = []

    async def GetJob(self, request, context):
        self.entered.append(await self._access.established.authenticate(context))
        return job_pb2.Job(job_id=request.job_id)


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
def key_file(issuer: TokenIssuer, tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(issuer.jwks())
    return path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(SystemClock().now())


@pytest.fixture
def settings(key_file: Path) -> AccessSettings:
    return AccessSettings(
        auth_mode="production",
        allow_plaintext=True,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_jwks_file=key_file,
    )


@pytest.fixture
def store() -> MemoryApiKeyStore:
    return MemoryApiKeyStore()


@pytest.fixture
def access(settings: AccessSettings, store: MemoryApiKeyStore, clock: FakeClock) -> Access:
    return Access(settings, store, clock)


@pytest.fixture
def jobs(access: Access) -> Jobs:
    return Jobs(access)


@asynccontextmanager
async def public_port(access: Access, jobs: Jobs, store: Any, clock: FakeClock) -> AsyncIterator[int]:
    server = RpcServer(
        "127.0.0.1:0",
        interceptors=[ErrorInterceptor(), *access.public_interceptors()],
        credentials=access.public_credentials(),
    )
    server.add(job_service_pb2_grpc.add_JobServiceServicer_to_server, jobs)
    keys = ApiKeyService(store, CreateApiKey(store, clock), clock, access.established)
    server.add(api_key_service_pb2_grpc.add_ApiKeyServiceServicer_to_server, keys)
    await server.start()
    yield server.port
    await server.stop(0)


@pytest.fixture
async def channel(access: Access, jobs: Jobs, store, clock: FakeClock) -> AsyncIterator[grpc.aio.Channel]:
    async with public_port(access, jobs, store, clock) as port, open_channel(f"127.0.0.1:{port}") as channel:
        yield channel


@pytest.fixture
def get_job(channel: grpc.aio.Channel) -> Callable[..., Any]:
    stub = job_service_pb2_grpc.JobServiceStub(channel)

    def call(token: str | None = None, **metadata: str) -> Any:
        given = {**({"authorization": f"Bearer {token}"} if token else {}), **metadata}
        pairs = tuple((key.replace("_", "-"), value) for key, value in given.items())
        return stub.GetJob(job_service_pb2.GetJobRequest(job_id="j"), metadata=pairs)

    return call


async def reason_of_refusal(call: Any, kind: type[PunctualError] = UnauthenticatedError) -> str:
    with pytest.raises(kind) as raised:
        await call
    return raised.value.reason


# Tokens


async def test_caller_of_a_token_gets_in_with_what_it_says(get_job, jobs: Jobs, issuer: TokenIssuer) -> None:
    await get_job(issuer.sign(projects=["a"]), x_request_id="mine-1")
    [caller] = jobs.entered
    assert (caller.subject, caller.scope.org_id, caller.scope.project_ids) == ("ana", "acme", {"a"})
    assert (caller.permissions, caller.request_id, caller.method) == ({"jobs.read"}, "mine-1", "JobService.GetJob")
    assert caller.peer.startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_each_algorithm_gets_in(get_job, jobs: Jobs, issuer: TokenIssuer, algorithm: str) -> None:
    await get_job(issuer.sign(algorithm))
    assert len(jobs.entered) == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda issuer: None, "NO_CREDENTIAL"),
        (lambda issuer: "nonsense", "INVALID_TOKEN"),
        (lambda issuer: jwt.encode(good_claims(), None, algorithm="none"), "INVALID_TOKEN"),
        (lambda issuer: issuer.sign("HS256", key="some secret of more than 32 characters"), "INVALID_TOKEN"),
        (lambda issuer: issuer.sign(iss="https://other.test"), "INVALID_TOKEN"),
        (lambda issuer: issuer.sign(aud="other"), "INVALID_TOKEN"),
        (lambda issuer: issuer.sign(exp=1_000_000_000), "TOKEN_EXPIRED"),
        (lambda issuer: issuer.sign(nbf=4_000_000_000, exp=4_000_000_100), "INVALID_TOKEN"),
        (lambda issuer: TokenIssuer().sign(), "INVALID_TOKEN"),
    ],
    ids=["none", "nonsense", "unsigned", "hs256", "issuer", "audience", "expired", "not-yet", "other-keys"],
)
async def test_bad_token_enters_no_handler(get_job, jobs: Jobs, issuer: TokenIssuer, make, reason: str) -> None:
    assert await reason_of_refusal(get_job(make(issuer))) == reason
    assert jobs.entered == []


async def test_new_key_of_the_issuer_works_as_soon_as_it_is_used(
    get_job, issuer: TokenIssuer, key_file: Path, clock: FakeClock
) -> None:
    old = issuer.sign()
    await get_job(old)
    issuer.rotate()
    assert await reason_of_refusal(get_job(issuer.sign())) == "INVALID_TOKEN"
    key_file.write_bytes(issuer.jwks())
    await clock.advance(MIN_REFETCH_SECONDS)
    await get_job(issuer.sign())
    assert await reason_of_refusal(get_job(old)) == "INVALID_TOKEN"


async def test_missing_scope_is_named(get_job, jobs: Jobs, issuer: TokenIssuer) -> None:
    assert await reason_of_refusal(get_job(issuer.sign(scope="jobs.write")), PermissionDeniedError) == "SCOPE_REQUIRED"
    assert jobs.entered == []


async def test_only_an_operator_names_another_org(get_job, jobs: Jobs, issuer: TokenIssuer) -> None:
    refused = get_job(issuer.sign(), x_punctual_org="victim")
    assert await reason_of_refusal(refused, PermissionDeniedError) == "OPERATOR_REQUIRED"
    await get_job(issuer.sign(scope="jobs.read operator"), x_punctual_org="victim")
    assert [caller.scope.org_id for caller in jobs.entered] == ["victim"]


async def test_unfinished_method_is_refused_without_credential(channel) -> None:
    stub = job_service_pb2_grpc.JobServiceStub(channel)
    assert await reason_of_refusal(stub.ExplainJob(job_service_pb2.ExplainJobRequest())) == "NO_CREDENTIAL"


async def test_headers_beyond_the_limit_are_refused(get_job, jobs: Jobs) -> None:
    assert await reason_of_refusal(get_job("x" * 20_000), ResourceExhaustedError) == "RESOURCE_EXHAUSTED"
    assert jobs.entered == []


# API keys


async def test_api_key_is_created_used_and_revoked(channel, get_job, jobs: Jobs, issuer, clock: FakeClock) -> None:
    keys = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)
    admin_token = issuer.sign(scope="keys.admin jobs.read")
    metadata = (("authorization", f"Bearer {admin_token}"),)
    wanted = api_key_pb2.ApiKey(name="ci", scopes=["jobs.read"], project_ids=["a"])
    created = await keys.CreateApiKey(api_key_service_pb2.CreateApiKeyRequest(api_key=wanted), metadata=metadata)
    assert created.secret.startswith(f"{created.api_key.key_id}.")

    await get_job(created.secret)
    [caller] = jobs.entered
    assert (caller.subject, caller.scope.project_ids) == (created.api_key.key_id, {"a"})

    listed = await keys.ListApiKeys(api_key_service_pb2.ListApiKeysRequest(), metadata=metadata)
    assert list(listed.api_keys) == [created.api_key]
    assert (created.api_key.creator, list(created.api_key.scopes)) == ("ana", ["jobs.read"])

    request = api_key_service_pb2.RevokeApiKeyRequest(key_id=created.api_key.key_id)
    revoked = await keys.RevokeApiKey(request, metadata=metadata)
    assert revoked.HasField("revoke_time")
    await clock.advance(5)
    assert await reason_of_refusal(get_job(created.secret)) == "API_KEY_REVOKED"
    assert not (await keys.ListApiKeys(api_key_service_pb2.ListApiKeysRequest(), metadata=metadata)).api_keys


async def test_key_gets_no_scope_that_its_creator_lacks(channel, issuer: TokenIssuer) -> None:
    keys = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)
    request = api_key_service_pb2.CreateApiKeyRequest(api_key=api_key_pb2.ApiKey(name="x", scopes=["jobs.write"]))
    metadata = (("authorization", f"Bearer {issuer.sign(scope='keys.admin')}"),)
    call = keys.CreateApiKey(request, metadata=metadata)
    assert await reason_of_refusal(call, PermissionDeniedError) == "SCOPE_NOT_HELD"


async def test_key_of_another_org_is_not_there(channel, issuer: TokenIssuer) -> None:
    keys = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)

    def as_admin_of(org: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {issuer.sign(scope='keys.admin', org=org)}"),)

    request = api_key_service_pb2.CreateApiKeyRequest(api_key=api_key_pb2.ApiKey(name="x", scopes=["keys.admin"]))
    created = await keys.CreateApiKey(request, metadata=as_admin_of("acme"))
    revoke = api_key_service_pb2.RevokeApiKeyRequest(key_id=created.api_key.key_id)
    with pytest.raises(NotFoundError):
        await keys.RevokeApiKey(revoke, metadata=as_admin_of("other"))
    assert not (
        await keys.ListApiKeys(api_key_service_pb2.ListApiKeysRequest(), metadata=as_admin_of("other"))
    ).api_keys


async def test_pages_of_keys_continue(channel, issuer: TokenIssuer) -> None:
    keys = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)
    metadata = (("authorization", f"Bearer {issuer.sign(scope='keys.admin')}"),)
    wanted = api_key_service_pb2.CreateApiKeyRequest(api_key=api_key_pb2.ApiKey(name="x", scopes=["keys.admin"]))
    made = [(await keys.CreateApiKey(wanted, metadata=metadata)).api_key.key_id for _ in range(3)]
    request = api_key_service_pb2.ListApiKeysRequest(page_size=2)
    first = await keys.ListApiKeys(request, metadata=metadata)
    request.page_token = first.next_page_token
    second = await keys.ListApiKeys(request, metadata=metadata)
    assert sorted(key.key_id for key in (*first.api_keys, *second.api_keys)) == sorted(made)
    assert second.next_page_token == ""


def test_first_key_is_made_beside_the_api(mongo_uri, mongo_database, mongo_janitor, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PUNCTUAL_MONGODB_URI", mongo_uri)
    monkeypatch.setenv("PUNCTUAL_MONGODB_DATABASE", mongo_database)
    command = ["create-api-key", "--org", "acme", "--name", "first", "--scopes", "keys.admin,operator"]
    assert admin(command) == 0
    key_id, _, secret = capsys.readouterr().out.strip().partition(".")
    [stored] = mongo_janitor[mongo_database]["api_keys"].find()
    assert (stored["_id"], stored["org_id"], stored["creator"]) == (key_id, "acme", "punctual-admin")
    assert stored["scopes"] == ["keys.admin", "operator"]
    assert secret
    assert secret not in str(stored)
    assert admin([*command[:-1], "nonsense"]) == 1
    assert "nonsense" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        admin([*command, "--expire-days", "99999999"])
    assert stop.value.code == 2


def test_wrong_credentials_of_the_database_are_told_in_a_line(mongo_uri, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PUNCTUAL_MONGODB_URI", mongo_uri.replace("://", "://nobody:canary@"))
    assert admin(["migrate"]) == 1
    told = capsys.readouterr().err
    assert "AuthenticationFailed" in told
    assert (told.count("\n"), "canary" in told) == (1, False)


# TLS on the public port


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def test_public_port_speaks_tls_only(settings: AccessSettings, authority, issuer, clock, tmp_path) -> None:
    files = authority.issue("api.punctual.test").write(tmp_path / "public")
    with_tls = settings.model_copy(update={"public_tls_certificate": files.certificate, "public_tls_key": files.key})
    store = MemoryApiKeyStore()
    access = Access(with_tls, store, clock)
    jobs = Jobs(access)
    request, metadata = job_service_pb2.GetJobRequest(), (("authorization", f"Bearer {issuer.sign()}"),)
    async with public_port(access, jobs, store, clock) as port:
        trusting = grpc.ssl_channel_credentials(authority.certificate)
        async with open_channel(f"127.0.0.1:{port}", credentials=trusting) as channel:
            await job_service_pb2_grpc.JobServiceStub(channel).GetJob(request, metadata=metadata)
        async with open_channel(f"127.0.0.1:{port}", deadline_seconds=5) as channel:
            with pytest.raises(UnavailableError):
                await job_service_pb2_grpc.JobServiceStub(channel).GetJob(request, metadata=metadata)
    assert len(jobs.entered) == 1
