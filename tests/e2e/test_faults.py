"""The promises under faults: each test asserts that its fault bit, then lets the checker compare all three sides."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from punctual.internal.v1 import attempt_service_pb2, attempt_service_pb2_grpc
from punctual.v1 import job_pb2
from pymongo.asynchronous.database import AsyncDatabase
from redis.asyncio import Redis

from libs.common.rpc.client import open_channel
from tests.e2e.conftest import StartCluster
from tests.support.checker import check
from tests.support.cluster import Cluster, ServiceProcess, open_api
from tests.support.load import create_burst, soon, wait_final
from tools.devstack.waiting import wait_until

Database = AsyncDatabase[dict[str, Any]]
SPREAD_SECONDS = 6


async def _spread_load(cluster: Cluster, *, path: str = "ok", per_second: int = 50, **fields: Any) -> list[Any]:
    """Create jobs due over the next seconds, so that a fault in the middle has something to hit on both sides."""
    expected = []
    async with open_api(cluster) as api:
        for second in range(SPREAD_SECONDS):
            expected += await create_burst(api, cluster.target(path), per_second, soon(3 + second), **fields)
    return expected


async def _kill_under_load(
    start_cluster: StartCluster, database: Database, pick: Any, *, path: str = "ok"
) -> tuple[Cluster, ServiceProcess]:
    cluster = await start_cluster(schedulers=2, dispatchers=2, executors=2)
    victim: ServiceProcess = pick(cluster)
    expected = await _spread_load(cluster, path=path)
    await cluster.wait_arrivals(60)
    victim.child.kill()
    assert await victim.child.wait() != 0
    # It bit: work was still to come when the process died.
    assert len({arrival.execution_id for arrival in cluster.arrivals()}) < len(expected)
    await asyncio.sleep(0)
    await wait_final(database, len(expected))
    report = await check(database, cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": len(expected)}
    return cluster, victim


async def test_a_scheduler_is_killed_under_load(start_cluster: StartCluster, database: Database) -> None:
    await _kill_under_load(start_cluster, database, lambda cluster: cluster.schedulers[0])


async def test_a_dispatcher_is_killed_under_load(start_cluster: StartCluster, database: Database) -> None:
    await _kill_under_load(start_cluster, database, lambda cluster: cluster.dispatchers[0])


async def test_an_executor_is_killed_under_load(start_cluster: StartCluster, database: Database) -> None:
    cluster, _ = await _kill_under_load(start_cluster, database, lambda cluster: cluster.executors[0], path="slow/500")
    lost = await database.executions.count_documents({"attempts.outcome": "LOST"})
    assert lost > 0, "the executor held nothing when it died"
    doubled = [a.execution_id for a in cluster.arrivals()]
    assert len(doubled) <= len(set(doubled)) + lost


async def test_redis_forgets_everything_under_load(
    start_cluster: StartCluster, database: Database, redis_database: str
) -> None:
    # A slow target and few slots keep entries on the stream, so that there is something to forget.
    cluster = await start_cluster(executors=2, PUNCTUAL_EXECUTOR_CONCURRENCY="5", PUNCTUAL_EXECUTOR_PREFETCH="5")
    expected = await _spread_load(cluster, path="slow/100", per_second=40)
    await cluster.wait_arrivals(20)
    forgotten = 0
    async with Redis.from_url(redis_database) as redis:
        for _ in range(3):
            for key in await redis.keys("*due*"):
                forgotten += await redis.xlen(key)
            await redis.flushall()
            await cluster.wait_arrivals(min(len(cluster.arrivals()) + 30, len(expected)))
    assert forgotten > 0, "nothing was on the stream when it was flushed"
    await wait_final(database, len(expected))
    report = await check(database, cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": len(expected)}
    assert report.doubled == 0


async def test_a_dispatcher_dies_between_acquire_and_xadd(start_cluster: StartCluster, database: Database) -> None:
    cluster = await start_cluster()
    dispatcher = cluster.dispatchers[0]
    await dispatcher.child.stop()
    dispatcher.start(PUNCTUAL_CRASH_POINT="dispatcher.acquired")
    async with open_api(cluster) as api:
        expected = await create_burst(api, cluster.target("ok"), 30, soon(3))
    assert await dispatcher.child.wait() == 86, "the crash point was not reached"
    acquired = await database.executions.count_documents({"phase": "DISPATCHED"})
    assert acquired > 0
    dispatcher.start(PUNCTUAL_CRASH_POINT="")
    await wait_final(database, len(expected))
    report = await check(database, cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": 30}
    assert report.doubled == 0
    polled = await database.executions.count_documents({"delivery_path": "POLL"})
    assert polled >= acquired


async def test_an_executor_dies_in_the_middle_of_a_request(start_cluster: StartCluster, database: Database) -> None:
    cluster = await start_cluster()
    executor = cluster.executors[0]
    await executor.child.stop()
    executor.start(PUNCTUAL_CRASH_POINT="executor.posting")
    async with open_api(cluster) as api:
        retried = await create_burst(api, cluster.target("slow/300"), 1, soon(2))
    assert await executor.child.wait() == 86, "the crash point was not reached"
    await cluster.wait_arrivals(1)
    executor.start(PUNCTUAL_CRASH_POINT="")
    await wait_final(database, 1)
    report = await check(database, cluster.arrivals(), retried)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": 1}
    assert [arrival.attempt for arrival in cluster.arrivals()] == [1, 2]


async def test_a_request_of_unknown_outcome_is_never_sent_twice_where_the_job_says_so(
    start_cluster: StartCluster, database: Database
) -> None:
    cluster = await start_cluster()
    executor = cluster.executors[0]
    await executor.child.stop()
    executor.start(PUNCTUAL_CRASH_POINT="executor.posting")
    async with open_api(cluster) as api:
        expected = await create_burst(
            api, cluster.target("slow/300"), 1, soon(2), on_unknown_outcome=job_pb2.ON_UNKNOWN_OUTCOME_FAIL
        )
    assert await executor.child.wait() == 86, "the crash point was not reached"
    await cluster.wait_arrivals(1)
    executor.start(PUNCTUAL_CRASH_POINT="")
    await wait_final(database, 1)
    report = await check(database, cluster.arrivals(), expected, never_twice=[expected[0].job_id])
    report.assert_clean()
    assert report.states == {"UNKNOWN": 1}
    assert report.requests == 1


async def test_a_report_with_a_stale_token_changes_nothing(start_cluster: StartCluster, database: Database) -> None:
    cluster = await start_cluster()
    executor = cluster.executors[0]
    async with open_api(cluster) as api:
        expected = await create_burst(api, cluster.target("slow/1500"), 1, soon(2))
    await cluster.wait_arrivals(1)
    # A zombie: it holds the lease while it sleeps past its end, and another one finishes meanwhile.
    executor.child.suspend()
    try:
        stored = await _take_over(cluster, database, expected[0].execution_id)
    finally:
        executor.child.resume()
    assert stored["state"] == "SUCCEEDED"
    assert stored["fencing_token"] == 2

    async def zombie_heard() -> bool:
        async with open_api(cluster):
            pending = await database.executions.find_one({"_id": expected[0].execution_id})
            return bool(pending and pending["reported_token"] == 2) and await executor.is_ready()

    await wait_until(zombie_heard, seconds=20, what="the zombie's return")
    await executor.child.stop()
    after = await database.executions.find_one({"_id": expected[0].execution_id})
    assert after == stored, "the zombie changed the outcome"


async def _take_over(cluster: Cluster, database: Database, execution_id: str) -> dict[str, Any]:
    """Act as a second executor: poll the lost execution, report it, and report again under the zombie's token."""
    address = cluster.executors[0].environment["PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS"]
    async with open_channel(address) as channel:
        stub = attempt_service_pb2_grpc.AttemptServiceStub(channel)
        grants: list[attempt_service_pb2.AttemptGrant] = []

        async def granted() -> bool:
            request = attempt_service_pb2.PollReadyRequest(
                executor_id="second",
                request_id="poll-1",
                max_attempts=10,
                mode=attempt_service_pb2.PollReadyRequest.MODE_OVERDUE,
            )
            grants.extend((await stub.PollReady(request)).grants)
            return bool(grants)

        await wait_until(granted, seconds=20, what="the end of the zombie's lease")
        assert grants[0].execution_id == execution_id
        assert grants[0].fencing_token == 2
        now = Timestamp()
        now.GetCurrentTime()

        async def report(token: int) -> int:
            message = attempt_service_pb2.AttemptReport(
                lease=attempt_service_pb2.AttemptLease(execution_id=execution_id, fencing_token=token),
                result=attempt_service_pb2.AttemptReport.RESULT_ANSWERED,
                status_code=200,
                start_time=now,
                end_time=now,
                retry_after=Duration(seconds=0),
            )
            request = attempt_service_pb2.ReportAttemptsRequest(executor_id="second", reports=[message])
            return (await stub.ReportAttempts(request)).results[0].verdict

        assert await report(1) == attempt_service_pb2.ReportResult.VERDICT_STALE
        assert await report(2) == attempt_service_pb2.ReportResult.VERDICT_ACCEPTED
        assert await report(2) == attempt_service_pb2.ReportResult.VERDICT_ACCEPTED
        assert await report(1) == attempt_service_pb2.ReportResult.VERDICT_STALE
    stored = await database.executions.find_one({"_id": execution_id})
    assert stored is not None
    return stored


async def test_two_of_each_do_everything_once(start_cluster: StartCluster, database: Database) -> None:
    cluster = await start_cluster(schedulers=2, dispatchers=2, executors=2)
    async with open_api(cluster) as api:
        expected = await create_burst(api, cluster.target("ok"), 300, soon(4))
        await wait_final(database, 300)
    report = await check(database, cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": 300}
    assert report.doubled == 0
    executors = await database.executions.distinct("executor_id")
    assert len(executors) == 2


async def test_two_thousand_at_one_instant_with_an_executor_killed_half_way(
    start_cluster: StartCluster, database: Database
) -> None:
    cluster = await start_cluster(dispatchers=2, executors=2)
    async with open_api(cluster) as api:
        expected = await create_burst(api, cluster.target("ok"), 2000, soon(15))
    await cluster.wait_arrivals(600)
    cluster.executors[0].child.kill()
    assert len(cluster.arrivals()) < 2000, "all was done before the executor died"
    await wait_final(database, 2000)
    report = await check(database, cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": 2000}
