"""Promise P7 over the whole public surface: every RPC of every served service x every kind of caller.
Each row expects a code, that nothing of the owner's shows in the answer, and that nothing of the owner's changed.

The rows come from the service descriptors, so that a method that is added is in the matrix before anybody thinks of it;
one that addresses a new kind of object fails here until the matrix has such an object. The scheduler under test is put
together by its own composition root, in production mode, over MongoDB.
"""

from __future__ import annotations

import asyncio
import base64
import enum
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format, symbol_database
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from pymongo import MongoClient

from services.scheduler.adapters.rpc.method_rules import PUBLIC_RULES
from services.scheduler.app import PUBLIC_SERVICES, run
from services.scheduler.settings import SchedulerSettings
from services.scheduler.usecases.caller import Permission
from tests.support.token_issuer import AUDIENCE, ISSUER, TokenIssuer
from tools.devstack.ports import free_ports

OWNER, OTHER = "acme", "globex"
PROJECT, OTHER_PROJECT = "billing", "search"
LISTENING_SECONDS = 0.3
"""A watch that is open this long was let in."""

OK = grpc.StatusCode.OK
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT


def public_methods() -> Iterator[MethodDescriptor]:
    pool = symbol_database.Default().pool
    for name in PUBLIC_SERVICES:
        yield from pool.FindServiceByName(name).methods


METHODS = {f"{method.containing_service.name}.{method.name}": method for method in public_methods()}


class Kind(enum.Enum):
    """The columns."""

    NO_CREDENTIAL = "no credential"
    BAD_CREDENTIAL = "bad credential"
    MISSING_SCOPE = "missing scope"
    WRONG_ORG = "wrong org"
    WRONG_PROJECT = "wrong project"
    RIGHT = "right"


OBJECT_IDS = {"job_id", "execution_id", "key_id", "secret_id"}
"""Request fields that name an object, which another org must not find."""

NARROW = {"ListExecutions", "WatchExecutions"}
"""Methods whose ids only narrow down what they show; naming another's object shows nothing."""

DEVIATIONS: dict[tuple[str, Kind], grpc.StatusCode] = {
    # A definition that names a project beyond the credential is wrong by itself; nothing is looked up.
    ("JobService.CreateJob", Kind.WRONG_PROJECT): INVALID_ARGUMENT,
    # A key for the whole org is more than a caller with one project may give.
    ("ApiKeyService.CreateApiKey", Kind.WRONG_PROJECT): PERMISSION_DENIED,
    # The execution in the matrix has not begun.
    ("ExecutionService.RetryExecution", Kind.RIGHT): FAILED_PRECONDITION,
    ("ExecutionService.DownloadResponse", Kind.RIGHT): FAILED_PRECONDITION,
}
"""Where the rule of `expected_code` is not what the method should answer, and why."""


def expected_code(name: str, kind: Kind) -> grpc.StatusCode:
    method = METHODS[name]
    rule = PUBLIC_RULES[path_of(method)]
    if kind in {Kind.NO_CREDENTIAL, Kind.BAD_CREDENTIAL}:
        return UNAUTHENTICATED
    if kind is Kind.MISSING_SCOPE or (kind is Kind.WRONG_PROJECT and rule.whole_org):
        return PERMISSION_DENIED
    if (name, kind) in DEVIATIONS:
        return DEVIATIONS[name, kind]
    return NOT_FOUND if kind is not Kind.RIGHT and addresses_object(method) else OK


def addresses_object(method: MethodDescriptor) -> bool:
    fields = {field.name for field in method.input_type.fields}
    # UpdateJob names the job inside of it.
    return method.name not in NARROW and (bool(fields & OBJECT_IDS) or method.name == "UpdateJob")


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


@dataclass
class World:
    """A running scheduler, and callers of it."""

    channel: grpc.aio.Channel
    issuer: TokenIssuer

    def token(self, method: MethodDescriptor, kind: Kind) -> str | None:
        match kind:
            case Kind.NO_CREDENTIAL:
                return None
            case Kind.BAD_CREDENTIAL:
                return TokenIssuer().sign(org=OWNER, scope=" ".join(Permission))
            case Kind.MISSING_SCOPE:
                lacking = frozenset(Permission) - PUBLIC_RULES[path_of(method)].any_of
                return self.issuer.sign(org=OWNER, scope=" ".join(lacking))
            case Kind.WRONG_ORG:
                return self.issuer.sign(org=OTHER, scope=" ".join(Permission))
            case Kind.WRONG_PROJECT:
                return self.issuer.sign(org=OWNER, scope=" ".join(Permission), projects=[OTHER_PROJECT])
            case Kind.RIGHT:
                return self.issuer.sign(org=OWNER, scope=" ".join(Permission))

    async def call(self, method: MethodDescriptor, request: Message, token: str | None) -> tuple[str, bytes]:
        """Return what the method answers: the name of its code, or of its reason if it is not built yet."""
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = make(path_of(method), request.SerializeToString, lambda answer: answer)
        try:
            if method.server_streaming:
                return OK.name, await first_of_stream(call(request, metadata=metadata, timeout=10))
            return OK.name, await call(request, metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return check_details(error), b""

    async def make(self, name: str, **fields: Any) -> Message:
        """Make a call as the owner that cannot fail."""
        method = METHODS[name]
        request = json_format.ParseDict(fields, GetMessageClass(method.input_type)())
        code, answer = await self.call(method, request, self.token(method, Kind.RIGHT))
        assert code == OK.name, code
        return GetMessageClass(method.output_type).FromString(answer)


async def first_of_stream(call: Any) -> bytes:
    """Return the first message; empty for a stream that is open and has nothing to say."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LISTENING_SECONDS):
            async for answer in call:
                call.cancel()
                return bytes(answer)
    call.cancel()
    return b""


def check_details(error: grpc.aio.AioRpcError) -> str:
    """Return the code's name after a look at what every refusal must carry."""
    details = [value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"]
    assert len(details) == 1, (error.code(), error.details())
    status = status_pb2.Status.FromString(details[0])
    infos = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    return error.code().name


def job(**changes: Any) -> dict[str, Any]:
    return {
        "project_id": PROJECT,
        "name": f"job {uuid.uuid4().hex}",
        "target": {"url": "https://target.test/run", "prompt": f"hello {uuid.uuid4().hex}"},
        "schedule": {"cron": {"expression": "0 9 * * *"}, "time_zone": "UTC"},
        **changes,
    }


async def make_objects(world: World, method: MethodDescriptor) -> dict[str, str]:
    """Create, as the owner, what the method's service could reach; returns the ids by the names of request fields."""
    service = method.containing_service.name
    ids: dict[str, str] = {}
    if service in {"JobService", "ExecutionService", "AuditService"}:
        made: Any = await world.make("JobService.CreateJob", job=job())
        execution: Any = await world.make("JobService.RunJob", job_id=made.job.job_id)
        ids |= {"job_id": made.job.job_id, "execution_id": execution.execution_id}
    if service == "ApiKeyService":
        key: Any = await world.make("ApiKeyService.CreateApiKey", api_key={"name": "x", "scopes": ["jobs.read"]})
        ids["key_id"] = key.api_key.key_id
    if service == "SigningSecretService":
        secret: Any = await world.make("SigningSecretService.RotateSigningSecret", overlap="0s")
        ids["secret_id"] = secret.signing_secret.secret_id
    return ids


def request_about(method: MethodDescriptor, ids: dict[str, str]) -> Message:
    """Return a request that the owner may make."""
    values: dict[str, Any] = {
        **ids,
        "project_id": PROJECT,
        "job": job(job_id=ids["job_id"]) if method.name == "UpdateJob" else job(),
        "requests": [{"job": job()}],
        "schedule": job()["schedule"],
        "api_key": {"name": "x", "scopes": ["jobs.read"]},
        "host": "target.test:443",
        "overlap": "0s",
    }
    given = {field.name: values[field.name] for field in method.input_type.fields if field.name in values}
    return json_format.ParseDict(given, GetMessageClass(method.input_type)())


async def seen_by_owner(world: World, ids: dict[str, str]) -> list[Message]:
    """Return the objects as they stand now."""
    found = []
    if "job_id" in ids:
        found.append(await world.make("JobService.GetJob", job_id=ids["job_id"]))
        found.append(await world.make("ExecutionService.GetExecution", execution_id=ids["execution_id"]))
    if "key_id" in ids:
        found.append(await world.make("ApiKeyService.ListApiKeys", page_size=1000))
    if "secret_id" in ids:
        found.append(await world.make("SigningSecretService.ListSigningSecrets"))
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    mongo_uri: str, mongo_janitor: MongoClient[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    issuer = TokenIssuer()
    database = f"test_tenancy_{uuid.uuid4().hex}"
    public, internal = free_ports(2)
    settings = scheduler_settings(
        tmp_path_factory.mktemp("keys") / "jwks.json",
        issuer,
        mongodb_uri=mongo_uri,
        mongodb_database=database,
        scheduler_public_address=f"127.0.0.1:{public}",
        scheduler_internal_address=f"127.0.0.1:{internal}",
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(run(settings, stopping))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{public}", (("grpc.max_reconnect_backoff_ms", 100),)) as channel:
        ready = asyncio.create_task(channel.channel_ready())
        await asyncio.wait({running, ready}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            ready.cancel()
            running.result()
        yield World(channel, issuer)
    stopping.set()
    await running
    mongo_janitor.drop_database(database)


def scheduler_settings(key_file: Path, issuer: TokenIssuer, **changes: Any) -> SchedulerSettings:
    key_file.write_bytes(issuer.jwks())
    return SchedulerSettings(
        auth_mode="production",
        allow_plaintext=True,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_jwks_file=key_file,
        key_ring=f"test:{base64.b64encode(bytes(32)).decode()}",
        calls_per_minute=0,
        creates_per_minute=0,
        **changes,
    )


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
@pytest.mark.parametrize("name", METHODS)
async def test_caller_gets_what_is_theirs(world: World, name: str, kind: Kind) -> None:
    method = METHODS[name]
    ids = await make_objects(world, method)
    before = await seen_by_owner(world, ids)
    code, answer = await world.call(method, request_about(method, ids), world.token(method, kind))
    if code == "UNIMPLEMENTED" and kind in {Kind.WRONG_ORG, Kind.WRONG_PROJECT, Kind.RIGHT}:
        pytest.skip(f"{name} is not built yet")
    assert code == expected_code(name, kind).name
    if kind is not Kind.RIGHT:
        assert [object_id for object_id in ids.values() if object_id.encode() in answer] == []
        assert await seen_by_owner(world, ids) == before


def test_matrix_knows_every_kind_of_object() -> None:
    """A request that names a new kind of object needs one in the matrix, or nobody checks whose it is."""
    filters = {"project_id", "trace_id", "object_id"}
    named = {field.name for method in METHODS.values() for field in method.input_type.fields if "_id" in field.name}
    assert named - OBJECT_IDS - filters == set()
