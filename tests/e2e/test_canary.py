"""Promise P8 over the whole system: secrets pass through all three services, and lie about in none of them.

A job with secret headers, a prompt and a template fires at a target that sends back all that it was sent; others fail,
are retried, are put back by limits, or find nobody. Then everything is searched: the logs of all services at their most
talkative, every command that Redis was given and what is left in it, every document, and the metrics of each service.
What the scheduler alone does is searched in tests/integration/scheduler/test_canary.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import grpc
from aiohttp import web
from google.protobuf import json_format
from punctual.v1.execution_pb2 import Execution
from punctual.v1.execution_service_pb2 import DownloadResponseRequest, GetExecutionRequest, ListExecutionsRequest
from punctual.v1.execution_service_pb2_grpc import ExecutionServiceStub
from punctual.v1.job_service_pb2 import CreateJobRequest, RunJobRequest
from punctual.v1.job_service_pb2_grpc import JobServiceStub
from punctual.v1.signing_secret_service_pb2 import RotateSigningSecretRequest
from punctual.v1.signing_secret_service_pb2_grpc import SigningSecretServiceStub
from punctual.v1.target_host_service_pb2 import SetTargetHostLimitRequest
from punctual.v1.target_host_service_pb2_grpc import TargetHostServiceStub
from pymongo.asynchronous.database import AsyncDatabase
from redis.asyncio import Redis

from tests.support.cluster import LOOPBACK, ORG, Cluster
from tests.support.load import wait_final
from tools.devstack.ports import free_ports


def canary(place: str) -> str:
    return f"canary-{place}-{uuid.uuid4().hex}"


AUTHORIZATION, FLAGGED, COOKIE = canary("authorization"), canary("flagged"), canary("cookie")
PROMPT, TEMPLATE, QUERY, ANSWER = canary("prompt"), canary("template"), canary("query"), canary("answer")
KEY_RING = base64.b64encode(os.urandom(32)).decode()
SECRETS = [AUTHORIZATION, FLAGGED, COOKIE]
"""Nowhere at all, and not in what the target sent back either."""
CONTENTS = [PROMPT, TEMPLATE, QUERY, ANSWER]
"""In the database, where whoever may see them finds them, and nowhere else."""


class Echo:
    """A target that answers with all that it got, and keeps what came."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        """Answer with the request's head and body, in a status that the path names."""
        text = json.dumps([str(request.rel_url), dict(request.headers), (await request.read()).decode(), ANSWER])
        self.requests.append(text)
        status = int(request.match_info["status"])
        headers = {"X-Echo": request.headers["Authorization"], "Retry-After": "1"} if status != 302 else {}
        if status == 302:
            headers = {"Location": f"http://{LOOPBACK}:1/gone?key={QUERY}"}
        return web.Response(text=text, status=status, headers=headers)


@asynccontextmanager
async def echo_target() -> AsyncIterator[tuple[Echo, str]]:
    """Serve one; gives it with its address."""
    echo, (port,) = Echo(), free_ports(1)
    app = web.Application()
    app.router.add_route("*", "/{status}", echo.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    yield echo, f"http://{LOOPBACK}:{port}"
    await runner.cleanup()


@asynccontextmanager
async def listening_in(redis_url: str) -> AsyncIterator[list[str]]:
    """Note every command that Redis is given."""
    parts, heard = urlsplit(redis_url), []
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)
    writer.write(b"MONITOR\r\n")

    async def listen() -> None:
        while line := await reader.readline():
            heard.append(line.decode(errors="replace"))

    listener = asyncio.create_task(listen())
    yield heard
    listener.cancel()
    with suppress(asyncio.CancelledError):
        await listener
    writer.close()
    await writer.wait_closed()


def a_job(name: str, url: str, **fields: Any) -> CreateJobRequest:
    headers = [
        {"name": "Authorization", "value": f"Bearer {AUTHORIZATION}"},
        {"name": "X-Custom", "value": FLAGGED, "sensitive": True},
        {"name": "Cookie", "value": f"session={COOKIE}"},
    ]
    body = {"template": f'{{"t": "{TEMPLATE}", "p": "{{{{prompt}}}}"}}'}
    target = {"url": f"{url}?key={QUERY}", "prompt": f"{PROMPT} {name}", "headers": headers, "body": body}
    job = {
        "name": name,
        "target": target,
        "schedule": {"cron": {"expression": "0 9 1 1 *"}},
        "retry_policy": {"max_attempts": 2, "initial_backoff": "0.1s"},
        **fields,
    }
    return json_format.ParseDict({"job": job}, CreateJobRequest())


async def drive(channel: grpc.aio.Channel, url: str) -> int:
    """Make jobs that end in every way, and run each of them twice; returns the number of executions."""
    jobs = JobServiceStub(channel)
    await SigningSecretServiceStub(channel).RotateSigningSecret(RotateSigningSecretRequest(), metadata=ORG)
    # The host is limited, so that its gate in Redis is in use.
    limit = SetTargetHostLimitRequest(
        host=url.removeprefix("http://"), max_requests_per_minute=600, max_concurrent_requests=2
    )
    await TargetHostServiceStub(channel).SetTargetHostLimit(limit, metadata=ORG)
    checks = [{"json_path_equals": {"path": "$[3]", "json_value": '"something else"'}}]
    requests = [
        a_job("answered", f"{url}/200", rate_limit_policy={"max_requests_per_minute": 60}),
        a_job("refused by its check", f"{url}/200", response_policy={"checks": checks}),
        a_job("failed", f"{url}/500"),
        a_job("told to wait", f"{url}/429"),
        a_job("redirected", f"{url}/302"),
        a_job("nobody there", f"http://{LOOPBACK}:1/200"),
        a_job("no such host", "http://no-such-host.invalid/200"),
    ]
    for request in requests:
        job = (await jobs.CreateJob(request, metadata=ORG)).job
        for _ in range(2):
            await jobs.RunJob(RunJobRequest(job_id=job.job_id), metadata=ORG)
    return 2 * len(requests)


def texts(value: Any) -> Iterator[str]:
    """Yield all that a document holds; bytes as the characters that they would be."""
    match value:
        case dict():
            for name, part in value.items():
                yield name
                yield from texts(part)
        case list():
            for part in value:
                yield from texts(part)
        case bytes():
            yield value.decode("latin-1")
        case _:
            yield str(value)


async def stored_documents(database: AsyncDatabase[dict[str, Any]]) -> list[str]:
    """Return each document as one text."""
    names = await database.list_collection_names()
    return [" ".join(texts(document)) for name in names async for document in database[name].find()]


async def shown_executions(channel: grpc.aio.Channel) -> list[tuple[Execution, str]]:
    """Return all executions, each with all that callers can see of it: the record, and the whole answer."""
    service = ExecutionServiceStub(channel)
    found = []
    for listed in (await service.ListExecutions(ListExecutionsRequest(), metadata=ORG)).executions:
        execution_id = listed.execution_id
        execution = await service.GetExecution(GetExecutionRequest(execution_id=execution_id), metadata=ORG)
        answer = b""
        if execution.response.stored_size_bytes:
            parts = service.DownloadResponse(DownloadResponseRequest(execution_id=execution_id), metadata=ORG)
            answer = b"".join([part.chunk async for part in parts])
        found.append((execution, f"{execution} {execution.response.body!r} {answer!r}"))
    return found


async def kept_by_redis(url: str) -> list[str]:
    """Return all that is left in Redis, as text."""
    readers: dict[bytes, tuple[Any, ...]] = {
        b"string": ("GET",),
        b"hash": ("HGETALL",),
        b"list": ("LRANGE", 0, -1),
        b"set": ("SMEMBERS",),
        b"zset": ("ZRANGE", 0, -1),
        b"stream": ("XRANGE", "-", "+"),
    }
    found = []
    async with Redis.from_url(url) as redis:
        async for key in redis.scan_iter():
            command, *bounds = readers[await redis.type(key)]
            found.append(f"{key!r} {await redis.execute_command(command, key, *bounds)!r}")
    return found


async def metrics_of(ports: Iterable[int]) -> list[str]:
    async with aiohttp.ClientSession() as session:
        answers = [await session.get(f"http://{LOOPBACK}:{port}/metrics") for port in ports]
        return [await answer.text() for answer in answers]


def places(wanted: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Return where something is that must not be there: a few characters around it, without the rest of it."""
    return [
        f"{word[:18]}: {text[max(0, at - 80) : at]}"
        for word in wanted
        for text in texts
        if (at := text.find(word)) >= 0
    ]


async def test_no_secret_is_left_lying_about(
    mongo_uri: str, mongo_database: str, database: AsyncDatabase[dict[str, Any]], redis_database: str, tmp_path: Path
) -> None:
    settings = {"PUNCTUAL_LOG_LEVEL": "DEBUG", "PUNCTUAL_KEY_RING": f"k1:{KEY_RING}"}
    cluster = Cluster(tmp_path, mongo_uri, mongo_database, redis_database, **settings)
    metrics_ports = free_ports(len(cluster.services))
    for service, port in zip(cluster.services, metrics_ports, strict=True):
        service.environment = {**service.environment, "PUNCTUAL_METRICS_ADDRESS": f"{LOOPBACK}:{port}"}
    async with echo_target() as (echo, url), listening_in(redis_database) as heard:
        try:
            await cluster.start()
            async with grpc.aio.insecure_channel(cluster.public_addresses[0]) as channel:
                count = await drive(channel, url)
                await wait_final(database, count)
                executions = await shown_executions(channel)
                rotated = await SigningSecretServiceStub(channel).RotateSigningSecret(
                    RotateSigningSecretRequest(), metadata=ORG
                )
            metrics = await metrics_of(metrics_ports)
        finally:
            await cluster.stop()
    logs = {service.name: cluster.log(service) for service in cluster.services}
    documents, redis = await stored_documents(database), heard + await kept_by_redis(redis_database)
    shown = [text for _, text in executions]

    # What is searched for went where it should, so the search means something.
    assert all(word in text for word in (*SECRETS, TEMPLATE, QUERY, PROMPT) for text in echo.requests[:1])
    assert [word for word in CONTENTS if not any(word in text for text in (*documents, *shown))] == []
    assert any("XADD" in line for line in heard)
    assert all("# HELP" in text for text in metrics)
    assert all(text.strip() for text in logs.values())
    assert {execution.state_reason for execution, _ in executions} >= {"", "MAX_ATTEMPTS"}
    outcomes = {attempt.error_reason for execution, _ in executions for attempt in execution.attempts}
    assert outcomes >= {"", "HTTP_STATUS", "CHECK_FAILED", "CONNECT_FAILED", "DNS_FAILED"}

    signing = rotated.secret.removeprefix("whsec_")
    secrets = [*SECRETS, KEY_RING, signing, *(base64.b64encode(word.encode()).decode()[:-4] for word in SECRETS)]
    for name, text in logs.items():
        assert places([*secrets, *CONTENTS], [text]) == [], name
    assert places([*secrets, *CONTENTS], redis) == []
    assert places([*secrets, *CONTENTS], metrics) == []
    assert places(secrets, documents) == []
    assert places(secrets, shown) == []
