"""Promise P8, searched for: unique secrets are put in everywhere, every path is driven, and then all that the
scheduler wrote is read: its log, every collection, every reply.

The scheduler is a process of its own, in production mode, so that what reaches its standard output and error is all
there is. The paths lead through errors, too: refused calls, and defects that documents changed behind its back cause.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from bson import json_util
from google.protobuf import json_format, symbol_database
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from pymongo import MongoClient

from services.scheduler.adapters.rpc.audit_layer import MUTATING_METHODS
from services.scheduler.app import INTERNAL_SERVICES, PUBLIC_SERVICES
from tests.support.token_issuer import AUDIENCE, ISSUER, TokenIssuer
from tools.devstack.ports import free_ports
from tools.devstack.process import ChildProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL_SCOPES = "jobs.read jobs.write executions.read executions.content audit.read keys.admin org.admin operator"


def canary(place: str) -> str:
    return f"canary-{place}-{uuid.uuid4().hex}"


HEADER_BY_NAME, HEADER_BY_FLAG = canary("authorization"), canary("flagged")
HEADER_UPDATED, HEADER_REFUSED, HEADER_BATCH = canary("updated"), canary("refused"), canary("batch")
URL_QUERY, URL_REFUSED, PROMPT, TEMPLATE, ANSWER = (
    canary("query"),
    canary("badurl"),
    canary("prompt"),
    canary("template"),
    canary("answer"),
)
BAD_TOKEN, KEY_RING = canary("token"), os.urandom(32)

SECRETS = [HEADER_BY_NAME, HEADER_BY_FLAG, HEADER_UPDATED, HEADER_REFUSED, HEADER_BATCH, BAD_TOKEN]
"""Nowhere at all but in the grants of the internal port."""
CONTENTS = [URL_QUERY, URL_REFUSED, PROMPT, TEMPLATE, ANSWER]
"""Stored and shown to whoever may see them, but never logged."""

METHODS: dict[str, MethodDescriptor] = {
    f"{name.rpartition('.')[2]}.{method.name}": method
    for name in (*PUBLIC_SERVICES, *INTERNAL_SERVICES)
    for method in symbol_database.Default().pool.FindServiceByName(name).methods
}


@dataclass
class Scheduler:
    """The process under test, and all that came out of it."""

    public: grpc.aio.Channel
    internal: grpc.aio.Channel
    database: Any
    token: str
    lines: list[str]
    secrets: list[str] = field(default_factory=lambda: list(SECRETS))
    """Grows by what the API creates."""
    replies: list[str] = field(default_factory=list)
    called: set[str] = field(default_factory=set)

    async def call(self, name: str, *, token: str | None = None, creates: bool = False, **fields: Any) -> Any:
        """Call a method and keep its reply or its refusal, unless it is the one that tells a new secret."""
        method = METHODS[name]
        path = f"/{method.containing_service.full_name}/{method.name}"
        request = json_format.ParseDict(fields, GetMessageClass(method.input_type)())
        channel = self.internal if "internal" in path else self.public
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        answer_type = GetMessageClass(method.output_type)
        call = make(path, type(request).SerializeToString, answer_type.FromString)(
            request, metadata=(("authorization", f"Bearer {token or self.token}"),), timeout=10
        )
        self.called.add(path)
        try:
            if not method.server_streaming:
                answer = await call
            else:
                answer = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        async for answer in call:
                            self.replies.append(str(answer))
                call.cancel()
        except grpc.aio.AioRpcError as error:
            self.replies.append(f"{error.details()} {error.trailing_metadata()}")
            return error
        if not creates and "internal" not in path:
            self.replies.append(str(answer))
        return answer


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scheduler(
    mongo_uri: str, mongo_janitor: MongoClient[dict[str, Any]], key_file: Path
) -> AsyncIterator[Scheduler]:
    issuer, name = TokenIssuer(), f"test_canary_{uuid.uuid4().hex}"
    (key_file / "jwks.json").write_bytes(issuer.jwks())
    public, internal = free_ports(2)
    lines: list[str] = []
    child = ChildProcess(
        "scheduler",
        [sys.executable, "-m", "services.scheduler"],
        output=lines.append,
        env={
            "PATH": os.environ["PATH"],
            "PUNCTUAL_MONGODB_URI": mongo_uri,
            "PUNCTUAL_MONGODB_DATABASE": name,
            "PUNCTUAL_AUTH_MODE": "production",
            "PUNCTUAL_ALLOW_PLAINTEXT": "true",
            "PUNCTUAL_JWT_ISSUER": ISSUER,
            "PUNCTUAL_JWT_AUDIENCE": AUDIENCE,
            "PUNCTUAL_JWT_JWKS_FILE": str(key_file / "jwks.json"),
            "PUNCTUAL_KEY_RING": f"k1:{base64.b64encode(KEY_RING).decode()}",
            "PUNCTUAL_SCHEDULER_PUBLIC_ADDRESS": f"127.0.0.1:{public}",
            "PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS": f"127.0.0.1:{internal}",
            "PUNCTUAL_CREATES_PER_MINUTE": "30",
            "PUNCTUAL_LOG_LEVEL": "DEBUG",
        },
    )
    child.start()
    options = (("grpc.max_reconnect_backoff_ms", 100),)
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{public}", options) as outside,
        grpc.aio.insecure_channel(f"127.0.0.1:{internal}", options) as inside,
    ):

        async def serves() -> bool:
            return any("scheduler.serving" in line for line in lines)

        await child.wait_ready(serves, seconds=30)
        token = issuer.sign(org="acme", scope=ALL_SCOPES, sub="alice")
        served = Scheduler(outside, inside, mongo_janitor[name], token, lines)
        served.secrets += [token.rpartition(".")[2], base64.b64encode(KEY_RING).decode()]
        yield served
    await child.stop()
    mongo_janitor.drop_database(name)


def job(**target: Any) -> dict[str, Any]:
    plain = {
        "url": f"https://target.test/run?key={URL_QUERY}",
        "prompt": f"{PROMPT} {uuid.uuid4().hex}",
        "headers": [
            {"name": "Authorization", "value": f"Bearer {HEADER_BY_NAME}"},
            {"name": "X-Custom", "value": HEADER_BY_FLAG, "sensitive": True},
        ],
        "body": {"template": f'{{"t": "{TEMPLATE}", "p": "{{{{prompt}}}}"}}'},
        **target,
    }
    return {"name": "a job", "target": plain, "schedule": {"cron": {"expression": "0 9 * * *"}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driven(scheduler: Scheduler) -> Scheduler:
    """The scheduler after all paths were driven."""
    made = await drive_jobs(scheduler)
    await drive_executions(scheduler, made)
    await drive_keys_and_secrets(scheduler)
    await drive_refusals(scheduler, made)
    await scheduler.call("AuditService.ListAuditEvents")
    await drive_defects(scheduler, made)
    await scheduler.call("AuditService.ListAuditEvents")
    return scheduler


async def drive_jobs(scheduler: Scheduler) -> str:
    call = scheduler.call
    wanted = job()
    created = await call("JobService.CreateJob", job=wanted, idempotency_key="once")
    job_id: str = created.job.job_id
    await call("JobService.CreateJob", job=wanted, idempotency_key="once")
    await call("JobService.CreateJob", job=job(), idempotency_key="once")
    await call("JobService.CreateJob", job=wanted)
    await call("JobService.CreateJob", job=job(), validate_only=True)
    batch = job(headers=[{"name": "Cookie", "value": HEADER_BATCH}])
    await call("JobService.BatchCreateJobs", requests=[{"job": batch}, {"job": batch}, {"job": {"name": ""}}])
    await call("JobService.GetJob", job_id=job_id)
    await call("JobService.ListJobs")
    shown = json_format.MessageToDict((await call("JobService.GetJob", job_id=job_id)).target.headers[0])
    changed = [shown, {"name": "X-Custom", "value": HEADER_UPDATED, "sensitive": True}]
    change = {"job": {"job_id": job_id, "target": {"headers": changed}}, "update_mask": "target.headers"}
    await call("JobService.UpdateJob", **change)
    await call("JobService.PauseJob", job_id=job_id, note="a note")
    await call("JobService.PauseJob", job_id=job_id)
    await call("JobService.ResumeJob", job_id=job_id)
    await call("JobService.BulkPauseJobs", project_id="default", note="all")
    await call("JobService.BulkResumeJobs", project_id="default")
    await call("JobService.PreviewSchedule", schedule=wanted["schedule"])
    other = await call("JobService.CreateJob", job=job())
    await call("JobService.DeleteJob", job_id=other.job.job_id)
    return job_id


async def drive_executions(scheduler: Scheduler, job_id: str) -> None:
    call = scheduler.call
    execution = await call("JobService.RunJob", job_id=job_id)
    await call("DispatchService.LeasePartitions", dispatcher_id="d", lease="10s")
    await call("DispatchService.AcquireDue", partitions=list(range(256)), horizon="2s", max_executions=100)
    batch = await call(
        "AttemptService.BeginAttempts", executor_id="x", request_id="r", execution_ids=[execution.execution_id]
    )
    (grant,) = batch.grants
    sent = {header.name: header.value for header in grant.request.headers}
    assert sent == {"Authorization": f"Bearer {HEADER_BY_NAME}", "X-Custom": HEADER_UPDATED}
    lease = {"execution_id": grant.execution_id, "fencing_token": grant.fencing_token}
    await call("AttemptService.ExtendLeases", executor_id="x", leases=[lease])
    report = {
        "lease": lease,
        "result": "RESULT_ANSWERED",
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-01-01T00:00:01Z",
        "status_code": 200,
        "response": {"body": base64.b64encode(ANSWER.encode()).decode(), "stored_size_bytes": len(ANSWER)},
    }
    await call("AttemptService.ReportAttempts", executor_id="x", reports=[report])
    await call("AttemptService.PollReady", executor_id="x", request_id="p", max_attempts=9, mode="MODE_ALL")
    execution_id = execution.execution_id
    await call("ExecutionService.GetExecution", execution_id=execution_id)
    await call("ExecutionService.ListExecutions")
    await call("ExecutionService.WatchExecutions")
    await call("ExecutionService.DownloadResponse", execution_id=execution_id)
    again = await call("ExecutionService.RetryExecution", execution_id=execution_id)
    await call("ExecutionService.CancelExecution", execution_id=again.execution_id, note="not now")
    await call("ExecutionService.CancelExecution", execution_id=again.execution_id)
    window = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-02T00:00:00Z"}
    await call("JobService.ExplainJob", job_id=job_id, **window)


async def drive_keys_and_secrets(scheduler: Scheduler) -> None:
    call = scheduler.call
    key = await call("ApiKeyService.CreateApiKey", creates=True, api_key={"name": "k", "scopes": ["jobs.read"]})
    scheduler.secrets.append(key.secret.partition(".")[2])
    await call("JobService.ListJobs", token=key.secret)
    await call("JobService.CreateJob", token=key.secret, job=job())
    await call("ApiKeyService.ListApiKeys")
    await call("ApiKeyService.RevokeApiKey", key_id=key.api_key.key_id)
    await call("ApiKeyService.RevokeApiKey", key_id=key.api_key.key_id)
    for _ in range(3):
        made = await call("SigningSecretService.RotateSigningSecret", creates=True)
        if not isinstance(made, grpc.aio.AioRpcError):
            scheduler.secrets += [made.secret, made.secret.removeprefix("whsec_")]
            last = made.signing_secret.secret_id
    await call("SigningSecretService.ListSigningSecrets")
    await call("SigningSecretService.RevokeSigningSecret", secret_id=last)
    await call("OrgService.GetOrgSettings")
    settings = {"job_failed_callback_url": f"https://target.test/told?key={URL_QUERY}", "max_creates_per_minute": 25}
    await call("OrgService.UpdateOrgSettings", org_settings=settings)
    await call("TargetHostService.SetTargetHostLimit", host="target.test:443", max_requests_per_minute=30)
    await call("TargetHostService.ResetTargetHost", host="target.test:443")
    await call("TargetHostService.ListTargetHosts")


async def drive_refusals(scheduler: Scheduler, job_id: str) -> None:
    call = scheduler.call
    bad_header = [{"name": "Authorization", "value": f"a\r\n{HEADER_REFUSED}"}]
    await call("JobService.CreateJob", job=job(headers=bad_header))
    await call("JobService.CreateJob", job=job(headers=[{"name": "bad name", "value": HEADER_REFUSED}]))
    await call("JobService.CreateJob", job=job(url=f"ftp://user:{URL_REFUSED}@target.test/?key={URL_REFUSED}"))
    await call("JobService.CreateJob", job=job(body={"template": f'{{"t": {TEMPLATE}'}))
    await call("JobService.UpdateJob", job={"job_id": job_id, "target": {"headers": bad_header}})
    await call("JobService.PauseJob", job_id="01HZZZZZZZZZZZZZZZZZZZZZZZ")
    await call("JobService.ResumeJob", job_id=job_id, etag="r99")
    await call("OrgService.UpdateOrgSettings", org_settings={"max_jobs": -1})
    await call("JobService.ListJobs", token=BAD_TOKEN)
    await call("JobService.ListJobs", token=f"pk_01HZZZZZZZZZZZZZZZZZZZZZZZ_{BAD_TOKEN}")
    for _ in range(26):
        await call("JobService.CreateJob", job=job(url=URL_REFUSED))
    await call("OrgService.UpdateOrgSettings", org_settings={"max_creates_per_minute": 1000})


async def drive_defects(scheduler: Scheduler, job_id: str) -> None:
    """Make the scheduler stumble over its own documents, so that it logs tracebacks."""
    jobs = scheduler.database.jobs
    kept = jobs.find_one({"_id": job_id})
    jobs.update_one({"_id": job_id}, {"$set": {"definition": PROMPT}})
    broken = await scheduler.call("JobService.GetJob", job_id=job_id)
    assert broken.code() is grpc.StatusCode.INTERNAL
    jobs.update_one({"_id": job_id}, {"$set": {"definition": kept["definition"], "state": PROMPT}})
    broken = await scheduler.call("JobService.GetJob", job_id=job_id)
    assert broken.code() is grpc.StatusCode.INTERNAL
    jobs.replace_one({"_id": job_id}, kept)
    # A write that the server refuses comes back with the whole document in the driver's exception.
    scheduler.database.command("collMod", "jobs", validator={"never": {"$exists": True}})
    broken = await scheduler.call("JobService.CreateJob", job=job())
    assert broken.code() is grpc.StatusCode.INTERNAL
    broken = await scheduler.call("JobService.PauseJob", job_id=job_id)
    assert broken.code() is grpc.StatusCode.INTERNAL
    scheduler.database.command("collMod", "jobs", validator={})


def found(canaries: Sequence[str], texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(known, text[:300]) for text in texts for known in canaries if known in text]


def documents(database: Any) -> Iterator[str]:
    for name in database.list_collection_names():
        for document in database[name].find():
            yield f"{name}: {json_util.dumps(document)}"


async def test_the_paths_were_driven(driven: Scheduler) -> None:
    missing = {path_of(method) for method in METHODS.values()} - driven.called
    later = {"UploadResponse", "ReportTargetHosts", "ReleasePartitions"}
    assert {path for path in missing if path.rpartition("/")[2] not in later} == set()
    log = "\n".join(driven.lines)
    assert log.count("rpc.failed") == 4
    assert "Traceback" in log
    assert "ValueError: (text withheld)" in log
    assert "BulkWriteError" in log
    assert any(PROMPT in text for text in documents(driven.database)), "the search would find nothing"
    assert any(PROMPT in reply for reply in driven.replies), "the search would find nothing"


async def test_no_secret_and_no_content_is_in_the_log(driven: Scheduler) -> None:
    assert found([*driven.secrets, *CONTENTS], driven.lines) == []


async def test_no_secret_is_in_the_database(driven: Scheduler) -> None:
    stored = list(documents(driven.database))
    assert found(driven.secrets, stored) == []
    encoded = [base64.b64encode(secret.encode()).decode().rstrip("=") for secret in driven.secrets]
    assert found(encoded, stored) == []


async def test_no_secret_is_in_a_reply(driven: Scheduler) -> None:
    assert found(driven.secrets, driven.replies) == []


async def test_no_content_is_in_the_audit(driven: Scheduler) -> None:
    events = [json_util.dumps(event) for event in driven.database.audit_events.find()]
    assert found([PROMPT, TEMPLATE, ANSWER], events) == []


async def test_every_mutating_method_left_an_event(driven: Scheduler) -> None:
    audited = set(driven.database.audit_events.distinct("method", {"result": "OK"}))
    services = {name.rpartition(".")[2] for name in PUBLIC_SERVICES}
    expected = {path.rpartition(".")[2].replace("/", ".") for path in MUTATING_METHODS}
    assert {method for method in expected if method.partition(".")[0] in services} - audited == set()


async def test_refused_calls_left_their_reason(driven: Scheduler) -> None:
    refused = set(driven.database.audit_events.distinct("result"))
    assert {"INVALID_HEADER_VALUE", "JOB_NOT_FOUND", "ETAG_MISMATCH", "SCOPE_REQUIRED", "INTERNAL"} <= refused
    assert {"IDEMPOTENCY_KEY_REUSED", "DUPLICATE_JOB", "ROTATION_IN_PROGRESS", "CREATE_RATE_EXCEEDED"} <= refused


async def test_events_tell_who_and_what(driven: Scheduler) -> None:
    event = driven.database.audit_events.find_one({"method": "JobService.UpdateJob", "result": "OK"})
    assert event["actor"] == "alice"
    assert event["request_id"]
    assert event["peer"]
    (change,) = event["changes"]
    assert change["path"] == "job.target.headers"
    masked = [{"name": "Authorization", "value": "********"}, {"name": "X-Custom", "value": "********"}]
    assert json.loads(change["after"]) == masked


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"
