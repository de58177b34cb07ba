"""MongoDB steps down, loses its primary and then its majority under load: callers see UNAVAILABLE or wait, and that is
all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from punctual.v1 import job_service_pb2
from pymongo import AsyncMongoClient

from tests.support.checker import check
from tests.support.cluster import ORG, Cluster, open_api
from tests.support.history import mark, read_history
from tests.support.load import PASSING_ERRORS, one_time_job, soon, under_load, wait_final
from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.waiting import wait_until

DATABASE = "failover"
PER_SECOND = 25


@pytest.fixture
async def mongo(tmp_path: Path) -> AsyncIterator[MongoReplicaSet]:
    async with MongoReplicaSet(tmp_path / "mongo", members=3) as replica_set:
        yield replica_set


@pytest.mark.timeout(240)
async def test_primaries_come_and_go_and_then_there_is_none(
    mongo: MongoReplicaSet, redis_database: str, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path, mongo.uri, DATABASE, redis_database, schedulers=2, executors=2)
    async with AsyncMongoClient[dict[str, Any]](f"{mongo.uri}&serverMonitoringMode=poll") as client:
        database = client[DATABASE]
        try:
            await cluster.start()
            since = await mark(database)
            async with under_load(cluster, per_second=PER_SECOND) as expected:
                await cluster.wait_arrivals(20)
                before = await mongo.primary_index()
                await mongo.step_down()
                second = await mongo.primary_index()
                assert second != before, "nobody stepped down"
                await cluster.wait_arrivals(len(cluster.arrivals()) + 30)
                mongo.kill(second)
                assert await mongo.primary_index() != second
                await cluster.wait_arrivals(len(cluster.arrivals()) + 30)
            await wait_final(database, len(expected), seconds=90)
            report = await check(database, cluster.arrivals(), expected)
            history = await read_history(database, since)
            report.violations["P2 left a final state"] = history.left_final
            report.violations["P3 went back"] = history.shrunk
            report.violations = {promise: found for promise, found in report.violations.items() if found}
            report.assert_clean()
            assert report.states == {"SUCCEEDED": len(expected)}
            print(f"{report.summary()} lost={report.lost}")
            await _lose_majority(mongo, cluster, second)
        finally:
            await cluster.stop()


async def _lose_majority(mongo: MongoReplicaSet, cluster: Cluster, dead: int) -> None:
    """With two of three members gone nothing is acknowledged; the schedulers say that they are not ready, and live."""
    another = next(index for index in range(3) if index != dead)
    mongo.kill(another)
    ready = cluster.schedulers[0].is_ready

    async def not_ready() -> bool:
        return not await ready()

    await wait_until(not_ready, seconds=40, what="a scheduler that is not ready")
    assert await cluster.schedulers[0].health("liveness")
    async with open_api(cluster) as api:
        job = one_time_job("nobody can store it", cluster.target("ok"), soon(60))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.jobs.CreateJob(job_service_pb2.CreateJobRequest(job=job), metadata=ORG, timeout=10)
    assert refused.value.code() in PASSING_ERRORS
    for index in (dead, another):
        await mongo.restart(index)
    await asyncio.gather(*(service.ready() for service in cluster.services))
