"""WatchExecutions over a real change stream: what is shown, where a watch continues, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import jwt
import pytest
from punctual.internal.v1 import attempt_service_pb2
from punctual.v1 import api_key_pb2, api_key_service_pb2, execution_pb2
from punctual.v1.api_key_service_pb2_grpc import ApiKeyServiceStub
from punctual.v1.execution_service_pb2 import WatchExecutionsRequest, WatchExecutionsResponse
from punctual.v1.job_service_pb2 import RunJobRequest

from services.scheduler.usecases import watch_executions
from tests.support.served_scheduler import ORG, ServedScheduler, refusal, served_scheduler
from tests.support.token_issuer import AUDIENCE, ISSUER, good_claims

Execution = execution_pb2.Execution
PATIENCE = 10.0
OTHER_ORG = (("x-punctual-org", "globex"),)


@dataclass
class Watch:
    """An open watch."""

    answers: AsyncIterator[WatchExecutionsResponse]
    call: Any
    token: str = ""

    async def next(self) -> Execution | None:
        """Return the next change, or None for a heartbeat."""
        async with asyncio.timeout(PATIENCE):
            answer = await anext(self.answers)
        self.token = answer.resume_token
        return answer.execution if answer.HasField("execution") else None

    async def until(self, execution_id: str, state: int) -> list[tuple[str, int]]:
        """Return the changes up to a certain one."""
        seen = []
        while not seen or seen[-1] != (execution_id, state):
            execution = await self.next()
            if execution is not None:
                seen.append((execution.execution_id, execution.state))
        return seen

    async def ends(self) -> grpc.aio.AioRpcError:
        """Wait for the end of the watch."""
        try:
            while True:
                await self.next()
        except grpc.aio.AioRpcError as error:
            return error


@asynccontextmanager
async def watching(
    api: ServedScheduler, metadata: Sequence[tuple[str, str]] = ORG, **filters: Any
) -> AsyncIterator[Watch]:
    """Open a watch and wait until it stands."""
    call = api.executions.WatchExecutions(WatchExecutionsRequest(**filters), metadata=metadata)
    watch = Watch(aiter(call), call)
    if "resume_token" not in filters:
        assert await watch.next() is None
    yield watch
    call.cancel()


async def run(api: ServedScheduler, **changes: Any) -> str:
    job = await api.create(**changes)
    return (await api.jobs.RunJob(RunJobRequest(job_id=job.job_id), metadata=ORG)).execution_id


async def carry_out(api: ServedScheduler, execution_id: str) -> None:
    answer = attempt_service_pb2.ReportedResponse(body=b"secret answer", stored_size_bytes=13)
    await api.report((await api.begin(execution_id)).grants[0], response=answer)


async def test_a_watch_shows_what_happens_without_bytes(api: ServedScheduler) -> None:
    async with watching(api) as watch:
        execution_id = await run(api)
        assert await watch.until(execution_id, Execution.STATE_READY) == [(execution_id, Execution.STATE_READY)]
        grant = (await api.begin(execution_id)).grants[0]
        await watch.until(execution_id, Execution.STATE_RUNNING)
        answer = attempt_service_pb2.ReportedResponse(body=b"secret answer", stored_size_bytes=13)
        await api.report(grant, response=answer)
        ended = await watch.next()
        assert (ended.state, ended.response.status_code, ended.response.body) == (Execution.STATE_SUCCEEDED, 200, b"")


async def test_renewals_and_bookkeeping_are_no_changes(api: ServedScheduler) -> None:
    async with watching(api) as watch:
        execution_id = await run(api)
        grant = (await api.begin(execution_id)).grants[0]
        lease = attempt_service_pb2.AttemptLease(execution_id=execution_id, fencing_token=grant.fencing_token)
        extension = attempt_service_pb2.ExtendLeasesRequest(executor_id="executor-1", leases=[lease])
        for _ in range(3):
            await api.attempts.ExtendLeases(extension)
        await api.report(grant, status_code=404)
        seen = await watch.until(execution_id, Execution.STATE_FAILED)
        assert len(seen) == len(set(seen))


async def test_filters_restrict_a_watch(api: ServedScheduler) -> None:
    blue, red = await run(api, project_id="blue"), await run(api, project_id="red")
    job_id = blue.partition("-")[0]
    final = [Execution.STATE_SUCCEEDED]
    async with (
        watching(api, job_id=job_id, states=final) as by_job,
        watching(api, project_id="red", states=final) as by_project,
        watching(api, states=final) as by_state,
        watching(api, metadata=OTHER_ORG) as by_org,
    ):
        await carry_out(api, red)
        await carry_out(api, blue)
        done = Execution.STATE_SUCCEEDED
        assert await by_job.until(blue, done) == [(blue, done)]
        assert await by_project.until(red, done) == [(red, done)]
        assert await by_state.until(blue, done) == [(red, done), (blue, done)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await by_org.next()


async def test_a_watch_continues_where_it_was_left(api: ServedScheduler) -> None:
    done = Execution.STATE_SUCCEEDED
    ids = [await run(api) for _ in range(4)]
    async with watching(api, states=[done]) as watch:
        await carry_out(api, ids[0])
        await watch.until(ids[0], done)
        token = watch.token
    for execution_id in ids[1:]:
        await carry_out(api, execution_id)
    async with watching(api, states=[done], resume_token=token) as watch:
        assert [execution_id for execution_id, _ in await watch.until(ids[3], done)] == ids[1:]


async def test_a_token_of_a_heartbeat_continues_as_well(api: ServedScheduler) -> None:
    async with watching(api) as watch:
        token = watch.token
    execution_id = await run(api)
    async with watching(api, resume_token=token) as watch:
        await watch.until(execution_id, Execution.STATE_READY)


@pytest.mark.parametrize("token", ["nonsense", "zz", "82" * 20, "8265B0"])
async def test_a_token_that_is_none_is_refused(api: ServedScheduler, token: str) -> None:
    call = api.executions.WatchExecutions(WatchExecutionsRequest(resume_token=token), metadata=ORG)
    error = await Watch(aiter(call), call).ends()
    assert (error.code(), refusal(error).reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_RESUME_TOKEN")


async def test_watches_are_bounded_and_give_their_place_back(mongo_uri: str, empty_database: str) -> None:
    async with (
        served_scheduler(mongo_uri, empty_database, max_watches=2) as api,
        watching(api),
        watching(api) as second,
    ):
        call = api.executions.WatchExecutions(WatchExecutionsRequest(), metadata=ORG)
        error = await Watch(aiter(call), call).ends()
        assert (error.code(), refusal(error).reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "TOO_MANY_WATCHES",
        )
        second.call.cancel()
        for _ in range(100):
            call = api.executions.WatchExecutions(WatchExecutionsRequest(), metadata=ORG)
            watch = Watch(aiter(call), call)
            try:
                assert await watch.next() is None
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
        else:
            pytest.fail("the place of a cancelled watch stayed taken")
        call.cancel()


async def test_a_watch_beats_while_nothing_happens(api: ServedScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_executions, "HEARTBEAT_SECONDS", 0.01)
    async with watching(api) as watch:
        assert [await watch.next(), await watch.next()] == [None, None]


async def test_a_watch_ends_cleanly_when_the_server_stops(api: ServedScheduler) -> None:
    async with watching(api) as watch:
        api.stopping.set()
        error = await watch.ends()
        assert (error.code(), refusal(error).reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


SECRET = "a secret of the tests that is long enough"
PRODUCTION = {
    "auth_mode": "production",
    "allow_plaintext": True,
    "jwt_issuer": ISSUER,
    "jwt_audience": AUDIENCE,
    "jwt_hs256_secret": SECRET,
    "jwt_leeway_seconds": 0.0,
    "api_key_cache_seconds": 0.0,
    "key_ring": f"k1:{'A' * 43}=",
}


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def signed(seconds: int) -> str:
    claims = good_claims(exp=int(time.time()) + seconds, scope="executions.read keys.admin")
    return jwt.encode(claims, SECRET, algorithm="HS256")


async def test_a_watch_ends_when_its_key_is_revoked(
    mongo_uri: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_executions, "READMIT_SECONDS", 0.01)
    admin = bearer(signed(60))
    async with served_scheduler(mongo_uri, empty_database, **PRODUCTION) as api:
        keys = ApiKeyServiceStub(api.channel)
        wanted = api_key_pb2.ApiKey(name="dashboard", scopes=["executions.read"])
        made = await keys.CreateApiKey(api_key_service_pb2.CreateApiKeyRequest(api_key=wanted), metadata=admin)
        async with watching(api, metadata=bearer(made.secret)) as watch, watching(api, metadata=admin) as other:
            revoked = api_key_service_pb2.RevokeApiKeyRequest(key_id=made.api_key.key_id)
            await keys.RevokeApiKey(revoked, metadata=admin)
            error = await watch.ends()
            assert (error.code(), refusal(error).reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_REVOKED")
            assert not other.call.done(), "the watches of others go on"


async def test_a_watch_ends_when_its_token_expires(
    mongo_uri: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_executions, "READMIT_SECONDS", 0.01)
    async with (
        served_scheduler(mongo_uri, empty_database, **PRODUCTION) as api,
        watching(api, metadata=bearer(signed(2))) as watch,
    ):
        error = await watch.ends()
        assert (error.code(), refusal(error).reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
