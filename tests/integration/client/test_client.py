"""The client against the scheduler itself: what the fake of the unit tests could be wrong about."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import pytest
from punctual.v1.execution_pb2 import Execution
from punctual.v1.execution_service_pb2 import WatchExecutionsRequest
from punctual.v1.job_pb2 import Job
from punctual.v1.job_service_pb2 import CreateJobRequest

from libs.client import PunctualClient, daily, new_job, request_id_of
from libs.common.errors import (
    AbortedError,
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    UnauthenticatedError,
)
from tests.integration.client.conftest import ANSWER, RunningScheduler

T = TypeVar("T")


def job(name: str = "n", **changes: str) -> Job:
    arguments = {"prompt": "p", "url": "https://api.example.com/", "project_id": "ops"} | changes
    return new_job(name, schedule=daily("09:00", "Europe/Berlin"), labels={"team": "ops"}, **arguments)  # type: ignore[arg-type]


async def test_job_from_creation_to_deletion(client: PunctualClient) -> None:
    created = await client.jobs.create(job())
    assert len(created.next_fires) == 5
    job_id = created.job.job_id
    assert (await client.jobs.get(job_id)) == created.job
    paused = await client.jobs.pause(job_id, note="why", etag=created.job.etag)
    assert (paused.state, paused.state_note) == (Job.STATE_PAUSED, "why")
    with pytest.raises(AbortedError):
        await client.jobs.resume(job_id, etag=created.job.etag)
    assert (await client.jobs.resume(job_id)).state == Job.STATE_ACTIVE
    assert (await client.jobs.delete(job_id)).state == Job.STATE_DELETED


async def test_same_key_returns_the_first_job(client: PunctualClient) -> None:
    first = await client.jobs.create(job(), idempotency_key="k")
    again = await client.jobs.create(job(), idempotency_key="k")
    assert (again.job.job_id, again.replayed) == (first.job.job_id, True)


async def test_accidental_duplicate_is_refused(client: PunctualClient) -> None:
    first = await client.jobs.create(job())
    with pytest.raises(AlreadyExistsError) as raised:
        await client.jobs.create(job())
    assert raised.value.resource_id == first.job.job_id
    await client.jobs.create(job(), allow_duplicate=True)


async def test_update_changes_what_the_mask_names(client: PunctualClient) -> None:
    created = await client.jobs.create(job())
    wanted = Job(job_id=created.job.job_id, etag=created.job.etag, name="new")
    changed = await client.jobs.update(wanted, update_mask=["name"])
    assert (changed.job.name, changed.job.target) == ("new", created.job.target)
    with pytest.raises(AbortedError):
        await client.jobs.update(wanted, update_mask=["name"])


async def test_all_wrong_fields_are_named(client: PunctualClient) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        await client.jobs.create(job("", url="ftp://example.com"))
    assert {"job.name", "job.target.url"} <= {violation.field for violation in raised.value.violations}
    assert len(request_id_of(raised.value)) == 26


async def test_other_orgs_job_is_not_found(scheduler: RunningScheduler, client: PunctualClient) -> None:
    created = await client.jobs.create(job())
    async with PunctualClient(scheduler.address, org="other") as other:
        with pytest.raises(NotFoundError) as raised:
            await other.jobs.get(created.job.job_id)
        assert raised.value.resource_id == created.job.job_id
        assert [listed async for listed in other.jobs.list()] == []
    async with PunctualClient(scheduler.address) as nobody:
        with pytest.raises(UnauthenticatedError):
            await nobody.jobs.get(created.job.job_id)


async def test_pages_have_each_job_once(client: PunctualClient) -> None:
    requests = [CreateJobRequest(job=job(f"job {number}", prompt=f"{number}")) for number in range(25)]
    results = [result async for result in client.jobs.batch_create(requests)]
    assert all(result.HasField("job") for result in results)
    listed = [found.job_id async for found in client.jobs.list(project_id="ops", labels={"team": "ops"}, page_size=10)]
    assert listed == [result.job.job_id for result in reversed(results)]


async def test_bulk_pause_and_resume(client: PunctualClient) -> None:
    for number in range(3):
        await client.jobs.create(job(f"{number}", prompt=f"{number}"))
    assert [answer.changed_count async for answer in client.jobs.bulk_pause(labels={"team": "ops"})] == [3]
    assert [answer.changed_count async for answer in client.jobs.bulk_resume(project_id="ops")] == [3]


async def test_execution_is_watched_answered_explained_and_downloaded(
    scheduler: RunningScheduler, client: PunctualClient, tmp_path: Path
) -> None:
    created = await client.jobs.create(job())
    job_id, watched = created.job.job_id, [Execution.STATE_SUCCEEDED]
    token = await a_resume_token(client)
    async with aclosing(client.executions.watch(job_id=job_id, states=watched, resume_token=token)) as changes:
        change = asyncio.create_task(_first(anext(changes)))
        started = await client.jobs.run(job_id)
        assert await scheduler.answer_due() == 1
        async with asyncio.timeout(10):
            assert (await change).execution.execution_id == started.execution_id
    assert [chunk async for chunk in client.executions.download(started.execution_id)] == [ANSWER]
    description = await client.executions.download_to(started.execution_id, tmp_path / "answer")
    assert (description.status_code, (tmp_path / "answer").read_bytes()) == (200, ANSWER)
    decisions = [fire.decision async for fire in client.jobs.explain(job_id) if fire.execution.execution_id]
    assert decisions == ["RAN"]


async def a_resume_token(client: PunctualClient) -> str:
    """Return where the changes stand: a watch from here on shows what comes to pass before its stream stands, too."""
    executions = client.executions
    stream = executions._calls.open_stream(executions._stub.WatchExecutions, WatchExecutionsRequest())
    first = await stream.take(10)
    stream.close()
    assert first is not None
    return first.resume_token


async def _first(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def test_execution_is_cancelled_and_repeated(client: PunctualClient) -> None:
    created = await client.jobs.create(job())
    started = await client.jobs.run(created.job.job_id)
    cancelled = await client.executions.cancel(started.execution_id, note="why")
    assert cancelled.state == Execution.STATE_CANCELLED
    repeated = await client.executions.retry(started.execution_id)
    assert repeated.retried_execution_id == started.execution_id


async def test_what_belongs_to_the_org(client: PunctualClient) -> None:
    key = await client.api_keys.create("ci", scopes=["jobs.read"])
    assert key.secret
    assert (await client.api_keys.revoke(key.api_key.key_id)).HasField("revoke_time")
    rotated = await client.signing_secrets.rotate()
    assert [secret.secret_id for secret in await client.signing_secrets.list()] == [rotated.signing_secret.secret_id]
    await client.target_hosts.set_limit("api.example.com:443", max_requests_per_minute=60)
    [host] = [host async for host in client.target_hosts.list()]
    assert host.max_requests_per_minute == 60
    assert (await client.org.get()).org_id == "demo"
    methods = [event.method async for event in client.audit.list()]
    assert "ApiKeyService.CreateApiKey" in methods


async def test_installed_command(scheduler: RunningScheduler) -> None:
    """The entry point as a script runs it: its own process, the environment, an exit code."""
    punctual = Path(sys.executable).with_name("punctual")
    process = await asyncio.create_subprocess_exec(
        punctual,
        *("jobs", "preview", "--daily", "09:00", "--count", "1", "--output", "json"),
        env={"PUNCTUAL_ADDRESS": scheduler.address, "PUNCTUAL_ORG": "demo"},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(output)["localTime"].endswith("T09:00:00Z") or json.loads(output)["localTime"].endswith("+00:00")
