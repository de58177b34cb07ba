"""A call that is repeated because its answer never came: what the first one wrote is answered for when it is durable.

The secondaries are frozen: the primary takes writes and shows them, and would lose them if it died now.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager

import pytest
from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.v1 import job_service_pb2

from services.scheduler.adapters.mongo.connection import open_client
from services.scheduler.adapters.mongo.documents import ExecutionDocument
from services.scheduler.adapters.mongo.migrations import migrate
from services.scheduler.domain.execution import ExecutionState
from tests.support.served_scheduler import ORG, ServedScheduler, served_scheduler
from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.waiting import wait_until

SECONDS = 1.0
"""How long a call waits for its answer; the primary resigns much later."""


@pytest.fixture(scope="module")
def replica_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoReplicaSet]:
    mongo = MongoReplicaSet(tmp_path_factory.mktemp("mongo"), members=3, election_timeout_seconds=10)
    asyncio.run(mongo.start())
    try:
        yield mongo
    finally:
        asyncio.run(mongo.stop())


@pytest.fixture
async def replicas(replica_set: MongoReplicaSet) -> AsyncIterator[tuple[ServedScheduler, ServedScheduler]]:
    uri, database = f"{replica_set.uri}&serverMonitoringMode=poll", f"test_{uuid.uuid4().hex}"
    client = open_client(uri)
    await migrate(client[database])
    async with served_scheduler(uri, database) as first, served_scheduler(uri, database) as second:
        yield first, second
    await client.close()


@contextmanager
def frozen_secondaries(mongo: MongoReplicaSet, primary: int) -> Iterator[None]:
    secondaries = [index for index in range(3) if index != primary]
    for index in secondaries:
        mongo.suspend(index)
    try:
        yield
    finally:
        for index in secondaries:
            mongo.resume(index)


async def is_answered(call: Awaitable[object]) -> bool:
    """Whether a call is answered in its time."""
    try:
        async with asyncio.timeout(SECONDS):
            await call
    except TimeoutError:
        return False
    return True


async def until_stored(execution_id: str, state: ExecutionState) -> None:
    """Wait until the primary shows a write."""

    async def stored() -> bool:
        wanted = {"_id": execution_id, "state": state}
        return await ExecutionDocument.get_pymongo_collection().find_one(wanted, {"_id": 1}) is not None

    await wait_until(stored, seconds=10, what=f"{execution_id} in state {state}")


async def an_execution(api: ServedScheduler) -> str:
    """Start an execution, and return its id."""
    job = await api.create()
    run = await api.jobs.RunJob(job_service_pb2.RunJobRequest(job_id=job.job_id), metadata=ORG)
    return run.execution_id


@pytest.mark.parametrize("remembers", [True, False])
async def test_a_grant_is_told_when_it_is_durable(
    replica_set: MongoReplicaSet, replicas: tuple[ServedScheduler, ServedScheduler], remembers: bool
) -> None:
    inserted, other = replicas
    execution_id = await an_execution(inserted)
    api = inserted if remembers else other
    request = pb.BeginAttemptsRequest(executor_id="executor-1", request_id="r", execution_ids=[execution_id])
    with frozen_secondaries(replica_set, await replica_set.primary_index()):
        assert not await is_answered(api.attempts.BeginAttempts(request))
        await until_stored(execution_id, ExecutionState.RUNNING)
        # Else two could hold it under one token, should the primary die now.
        assert not await is_answered(api.attempts.BeginAttempts(request))
    (grant,) = (await api.attempts.BeginAttempts(request)).grants
    assert (grant.execution_id, grant.fencing_token) == (execution_id, 1)


async def test_a_grant_by_a_poll_is_told_when_it_is_durable(
    replica_set: MongoReplicaSet, replicas: tuple[ServedScheduler, ServedScheduler]
) -> None:
    api, _ = replicas
    execution_id = await an_execution(api)
    poll = pb.PollReadyRequest(
        executor_id="executor-1", request_id="r", max_attempts=10, mode=pb.PollReadyRequest.MODE_OVERDUE
    )
    repeated = pb.PollReadyRequest(repetition=True)
    repeated.MergeFrom(poll)
    with frozen_secondaries(replica_set, await replica_set.primary_index()):
        assert not await is_answered(api.attempts.PollReady(poll))
        await until_stored(execution_id, ExecutionState.RUNNING)
        assert not await is_answered(api.attempts.PollReady(repeated))
    (grant,) = (await api.attempts.PollReady(repeated)).grants
    assert (grant.execution_id, grant.fencing_token) == (execution_id, 1)


@pytest.mark.parametrize(("status", "state"), [(503, ExecutionState.READY), (400, ExecutionState.FAILED)])
async def test_a_report_is_taken_when_it_is_durable(
    replica_set: MongoReplicaSet,
    replicas: tuple[ServedScheduler, ServedScheduler],
    status: int,
    state: ExecutionState,
) -> None:
    api, _ = replicas
    execution_id = await an_execution(api)
    (grant,) = (await api.begin(execution_id)).grants
    with frozen_secondaries(replica_set, await replica_set.primary_index()):
        assert not await is_answered(api.report(grant, status_code=status))
        await until_stored(execution_id, state)
        assert not await is_answered(api.report(grant, status_code=status))
    assert await is_answered(api.report(grant, status_code=status))
