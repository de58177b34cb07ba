"""Answers from the target's bytes to the caller's, and callbacks from an end to whoever is told, over real services."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import random
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import aio
from punctual.v1 import execution_pb2, job_pb2, schedule_pb2
from punctual.v1.execution_service_pb2 import (
    DownloadResponseRequest,
    GetExecutionRequest,
    ListExecutionsRequest,
)
from punctual.v1.job_service_pb2 import CreateJobRequest, DeleteJobRequest, GetJobRequest, RunJobRequest
from punctual.v1.org_pb2 import OrgSettings
from punctual.v1.org_service_pb2 import UpdateOrgSettingsRequest
from punctual.v1.org_service_pb2_grpc import OrgServiceStub
from punctual.v1.signing_secret_service_pb2 import RotateSigningSecretRequest
from punctual.v1.signing_secret_service_pb2_grpc import SigningSecretServiceStub

from services.scheduler.domain.callback import RETRY
from tests.e2e.conftest import System
from tests.support.cluster import ORG, Api, open_api
from tools.devstack.waiting import wait_until

CLUSTER = {"executors": 1}
BINARY = bytes(range(256)) * 8
NOISE = random.Random(7).randbytes(700_000)
TEXT = b"".join(b"answer line %d\n" % number for number in range(20_000))
GZIPPED = gzip.compress(NOISE[:30_000].hex().encode(), mtime=0)
HOST_CONCURRENCY = 64
"""Requests at a time of an org to one host, by default."""
PIECE = 1_000_000
CAP = 10_000_000
LARGE_ANSWERS = 10
"""Of each kind: 50 MB by chance, 1 GB of zeros, and zeros inside of a gzip."""
SLOW_ANSWERS = 150


def zeros_in_gzip(pieces: int) -> bytes:
    """Return a gzip of so many million zeros, made piece by piece."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([packer.compress(b"\x00" * PIECE) for _ in range(pieces)]) + packer.flush()


BOMB = zeros_in_gzip(64)
BODIES = {"/binary": BINARY, "/noise": NOISE, "/text": TEXT, "/gzip": GZIPPED, "/bomb": BOMB}
SECRET = "Bearer sk-live-0123456789abcdef"
Execution = execution_pb2.Execution
Policy = job_pb2.ResponsePolicy


@dataclass
class Receiver:
    """A target in the test's own process that shows what came, and answers as the path says."""

    url: str = ""
    other_url: str = ""
    """The same under another host, with limits of its own."""
    requests: dict[str, list[tuple[web.BaseRequest, bytes]]] = field(default_factory=dict)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the first request to /hook hangs."""
    dripping: int = 0
    noise: bytes = field(default_factory=lambda: random.Random(11).randbytes(PIECE))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        seen = self.requests.setdefault(request.path, [])
        seen.append((request, body))
        match request.path:
            case "/endless":
                return await stream(request, b"\x00" * PIECE, 1024)
            case "/huge":
                return await stream(request, self.noise, 50)
            case "/drip":
                self.dripping += 1
                return await stream(request, b".", 60, wait=1.0)
            case "/echo":
                return web.Response(text=f"you said {request.headers['Authorization']}", headers={"X-Echo": SECRET})
            case "/hook" if len(seen) == 1:
                self.hanging.set()
                await asyncio.sleep(60)
            case "/hook" if len(seen) == 2:
                return web.Response(status=503)
        status = 400 if request.path == "/fail" else 200
        headers = {"Content-Encoding": "gzip"} if request.path in {"/gzip", "/bomb"} else {}
        return web.Response(status=status, body=BODIES.get(request.path, b""), headers=headers)


async def stream(request: web.BaseRequest, piece: bytes, count: int, *, wait: float = 0.0) -> web.StreamResponse:
    """Answer with many pieces, until the caller has enough."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(count):
        await response.write(piece)
        await asyncio.sleep(wait)
    return response


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    runner = web.ServerRunner(web.Server(receiver.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    await web.TCPSite(runner, "127.0.0.2", port).start()
    receiver.url, receiver.other_url = f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"
    yield receiver
    await runner.cleanup()


async def create(api: Api, url: str, headers: list[job_pb2.Header] | None = None, **fields: Any) -> job_pb2.Job:
    """Create a job that fires when it is told to."""
    job = job_pb2.Job(
        name="answers",
        schedule=schedule_pb2.Schedule(cron=schedule_pb2.CronRule(expression="0 0 29 2 *")),
        target=job_pb2.Target(url=url, prompt="Say it.", headers=headers or []),
        **fields,
    )
    return (await api.jobs.CreateJob(CreateJobRequest(job=job, allow_duplicate=True), metadata=ORG)).job


async def run(api: Api, job: job_pb2.Job, *, seconds: float = 20) -> Execution:
    """Run a job once, and return the execution when it has ended."""
    execution = await api.jobs.RunJob(RunJobRequest(job_id=job.job_id), metadata=ORG)
    request = GetExecutionRequest(execution_id=execution.execution_id)
    found = [execution]

    async def ended() -> bool:
        found[0] = await api.executions.GetExecution(request, metadata=ORG)
        return found[0].state > Execution.STATE_RUNNING

    await wait_until(ended, seconds=seconds, what="the end of an execution")
    return found[0]


async def answer(api: Api, url: str, **arguments: Any) -> tuple[execution_pb2.Response, bytes, str]:
    """Return what is kept of a target's answer: its description, its bytes, and how they are stored."""
    execution = await run(api, await create(api, url, **arguments))
    assert execution.state == Execution.STATE_SUCCEEDED, execution
    downloaded = []
    for raw in (False, True):
        request = DownloadResponseRequest(execution_id=execution.execution_id, raw=raw)
        downloaded.append([part async for part in api.executions.DownloadResponse(request, metadata=ORG)])
    data = b"".join(part.chunk for part in downloaded[0])
    assert hashlib.sha256(data).hexdigest() == execution.response.sha256
    assert len(data) == execution.response.stored_size_bytes
    return execution.response, data, downloaded[1][0].storage_encoding


async def test_answers_survive_the_whole_way_byte_for_byte(system: System, receiver: Receiver) -> None:
    async with open_api(system.cluster) as api:
        for path, body, encoding in (
            ("/binary", BINARY, "zstd"),
            ("/noise", NOISE, ""),
            ("/text", TEXT, "zstd"),
            ("/gzip", GZIPPED, ""),
        ):
            response, data, stored_as = await answer(api, receiver.url + path)
            assert (data, stored_as, response.truncated) == (body, encoding, False), path
            assert response.total_size_bytes == len(body)
            assert response.body == body[: len(response.body)]
            assert response.complete == (len(response.body) == len(body))
    assert await system.database["answers.files"].count_documents({}) == 1
    headers = {header.name: header.value for header in response.headers}
    assert headers["Content-Encoding"] == "gzip"


async def test_what_is_not_kept_is_flagged_and_secrets_are_masked(system: System, receiver: Receiver) -> None:
    async with open_api(system.cluster) as api:
        cut, data, _ = await answer(api, receiver.url + "/noise", response_policy=Policy(max_size_bytes=300_000))
        assert (data, cut.truncated, cut.total_size_bytes) == (NOISE[:300_000], True, len(NOISE))
        assert cut.warning
        assert not cut.complete
        head, data, _ = await answer(api, receiver.url + "/text", response_policy=Policy(store_full_response=False))
        assert (data, head.truncated, head.total_size_bytes) == (TEXT[:1024], True, len(TEXT))
        secret = job_pb2.Header(name="Authorization", value=SECRET)
        echo, data, _ = await answer(api, receiver.url + "/echo", headers=[secret])
        assert data == b"you said " + b"*" * len(data[9:])
        assert SECRET not in {header.value for header in echo.headers}


async def test_a_failure_is_told_signed_and_survives_executor_and_receiver(system: System, receiver: Receiver) -> None:
    cluster = system.cluster
    async with open_api(cluster) as api, aio.insecure_channel(cluster.public_addresses[0]) as channel:
        rotated = await SigningSecretServiceStub(channel).RotateSigningSecret(
            RotateSigningSecretRequest(), metadata=ORG
        )
        told = job_pb2.CallbackPolicy(url=receiver.url + "/hook")
        job = await create(api, receiver.url + "/fail", callback_policy=told)
        execution = await run(api, job)
        async with asyncio.timeout(20):
            await receiver.hanging.wait()
        cluster.executors[0].child.kill()
        await cluster.executors[0].child.wait()
        cluster.executors[0].start()

        async def taken() -> bool:
            return len(receiver.requests.get("/hook", [])) == 3

        await wait_until(taken, seconds=40, what="the callback's third attempt")
        listing = ListExecutionsRequest(job_id=job.job_id, causes=[Execution.CAUSE_CALLBACK])

        async def delivered() -> bool:
            page = await api.executions.ListExecutions(listing, metadata=ORG)
            return [e.state for e in page.executions] == [Execution.STATE_SUCCEEDED]

        await wait_until(delivered, seconds=10, what="the callback's end")
        [callback] = (await api.executions.ListExecutions(listing, metadata=ORG)).executions
    arrivals = receiver.requests["/hook"]
    assert {request.headers["webhook-id"] for request, _ in arrivals} == {callback.execution_id}
    assert [request.headers["Punctual-Attempt"] for request, _ in arrivals] == ["1", "2", "3"]
    assert len({body for _, body in arrivals}) == 1
    for request, body in arrivals:
        assert_signed(request, body, rotated.secret)
    message = json.loads(arrivals[0][1])
    assert message["type"] == "execution.failed"
    assert message["data"]["execution_id"] == execution.execution_id
    assert (message["data"]["state"], message["data"]["status_code"]) == ("FAILED", 400)
    assert (callback.job_id, callback.told_execution_id) == (job.job_id, execution.execution_id)
    assert float(receiver.requests["/hook"][2][0].headers["webhook-timestamp"]) > 0
    assert RETRY.max_attempts > len(callback.attempts)


async def test_a_job_that_fails_for_good_is_told_to_its_org(system: System, receiver: Receiver) -> None:
    cluster = system.cluster
    async with open_api(cluster) as api, aio.insecure_channel(cluster.public_addresses[0]) as channel:
        settings = OrgSettings(job_failed_callback_url=receiver.url + "/jobs")
        await OrgServiceStub(channel).UpdateOrgSettings(
            UpdateOrgSettingsRequest(org_settings=settings, update_mask=FieldMask(paths=["job_failed_callback_url"])),
            metadata=ORG,
        )
        job = await create(api, receiver.url + "/fail")
        for _ in range(5):
            assert (await run(api, job)).state == Execution.STATE_FAILED

        async def told() -> bool:
            return bool(receiver.requests.get("/jobs"))

        await wait_until(told, seconds=20, what="the callback about the job")
        assert (await api.jobs.GetJob(GetJobRequest(job_id=job.job_id), metadata=ORG)).state == job_pb2.Job.STATE_FAILED
    [(_, body)] = receiver.requests["/jobs"]
    message = json.loads(body)
    assert message["type"] == "job.failed"
    assert (message["data"]["job_id"], message["data"]["state_reason"]) == (job.job_id, "CONSECUTIVE_FAILURES")


async def test_large_answers_and_bombs_do_not_grow_the_executor(system: System, receiver: Receiver) -> None:
    executor = system.cluster.executors[0].child.pid
    async with open_api(system.cluster) as api:
        await run(api, await create(api, receiver.url + "/huge"))
        Path(f"/proc/{executor}/clear_refs").write_text("5")
        before = peak_bytes(executor)
        policy = Policy(max_size_bytes=CAP)
        limits = job_pb2.RateLimitPolicy(max_requests_per_minute=60_000)
        jobs = [
            await create(
                api,
                receiver.url + path,
                response_policy=policy,
                rate_limit_policy=limits,
                timeout_policy=job_pb2.TimeoutPolicy(total=Duration(seconds=120)),
            )
            for path in ("/huge", "/endless", "/bomb")
        ]
        ended = await asyncio.gather(*(run(api, job, seconds=180) for job in jobs for _ in range(LARGE_ANSWERS)))
        grown = peak_bytes(executor) - before
    print(f"executor's peak: {before / 1e6:.0f} MB before, {grown / 1e6:.0f} MB more under {len(ended)} answers")
    kinds = {job.job_id: [e.response for e in ended if e.job_id == job.job_id] for job in jobs}
    huge, endless, bombs = kinds.values()
    for response in [*huge, *endless]:
        assert (response.stored_size_bytes, response.truncated, bool(response.warning)) == (CAP, True, True)
    for response in bombs:
        assert (response.stored_size_bytes, response.truncated) == (len(BOMB), False)
    # Each holds a window of its connection and a chunk on its way, whatever the answer's length.
    assert grown < 3 * LARGE_ANSWERS * 3_000_000


async def test_slow_answers_of_one_host_do_not_stop_another(system: System, receiver: Receiver) -> None:
    async with open_api(system.cluster) as api:
        slow = await create(
            api,
            receiver.url + "/drip",
            rate_limit_policy=job_pb2.RateLimitPolicy(max_requests_per_minute=60_000),
            timeout_policy=job_pb2.TimeoutPolicy(total=Duration(seconds=60)),
        )
        request = RunJobRequest(job_id=slow.job_id)
        await asyncio.gather(*(api.jobs.RunJob(request, metadata=ORG) for _ in range(SLOW_ANSWERS)))

        async def busy() -> bool:
            return receiver.dripping >= HOST_CONCURRENCY

        await wait_until(busy, seconds=30, what="as many slow answers as a host may give at a time")
        quick = await create(api, receiver.other_url + "/binary")
        executions = [await run(api, quick, seconds=10) for _ in range(3)]
        assert [execution.state for execution in executions] == [Execution.STATE_SUCCEEDED] * 3
        assert receiver.dripping == HOST_CONCURRENCY
        await api.jobs.DeleteJob(DeleteJobRequest(job_id=slow.job_id), metadata=ORG)


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had since it was last cleared."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def assert_signed(request: web.BaseRequest, body: bytes, secret: str) -> None:
    """Verify as a receiver does, by the text of Standard Webhooks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert f"v1,{digest}" in request.headers["webhook-signature"].split(" ")
