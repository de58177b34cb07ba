"""The promises under faults of processes: each test asserts that its fault bit; then the checker compares all sides.

All tests share one cluster, two of each service, which is mended and emptied between them.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from punctual.internal.v1 import attempt_service_pb2, attempt_service_pb2_grpc
from redis.asyncio import Redis

from libs.common.rpc.client import open_channel
from tests.e2e.conftest import Database, System
from tests.support.checker import Expected, Report, check
from tests.support.cluster import Cluster, ServiceProcess, open_api
from tests.support.load import create_burst, soon, under_load, wait_final
from tools.devstack.waiting import wait_until

CLUSTER = {"schedulers": 2, "dispatchers": 2, "executors": 2}
Pick = Callable[[Cluster], ServiceProcess]
EACH_SERVICE: Sequence[Pick] = (lambda c: c.schedulers[0], lambda c: c.dispatchers[0], lambda c: c.executors[0])
NAMES = ("scheduler", "dispatcher", "executor")


async def _all_succeed(system: System, expected: Sequence[Expected]) -> Report:
    await wait_final(system.database, len(expected))
    report = await check(system.database, system.cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": len(expected)}
    print(report.summary())
    return report


async def test_two_of_each_do_everything_once(system: System) -> None:
    async with open_api(system.cluster) as api:
        expected = await create_burst(api, system.cluster.target("ok"), 300, soon(3))
    report = await _all_succeed(system, expected)
    assert report.doubled == 0
    assert len(await system.database.executions.distinct("executor_id")) == 2


@pytest.mark.parametrize("pick", EACH_SERVICE, ids=NAMES)
async def test_a_service_is_killed_under_load(system: System, pick: Pick) -> None:
    victim = pick(system.cluster)
    path = "slow/500" if "executor" in victim.name else "ok"
    async with under_load(system.cluster, path, per_second=50) as expected:
        await system.cluster.wait_arrivals(40)
        victim.child.kill()
        assert await victim.child.wait() == -signal.SIGKILL
    report = await _all_succeed(system, expected)
    if "executor" in victim.name:
        assert report.lost > 0, "the executor held nothing when it died"
        assert report.doubled <= report.lost


async def test_one_of_each_freezes_past_its_lease_and_comes_back(system: System) -> None:
    """Zombies: each believes that it still holds what others have taken over meanwhile."""
    cluster, victims = system.cluster, [pick(system.cluster) for pick in EACH_SERVICE]

    async def taken_over() -> bool:
        return await system.database.executions.find_one({"attempts.outcome": "LOST"}) is not None

    async with under_load(cluster, "slow/500", per_second=25) as expected:
        await cluster.wait_arrivals(25)
        for victim in victims:
            victim.child.suspend()
        try:
            assert not any(await asyncio.gather(*(victim.is_ready() for victim in victims))), "a frozen process answers"
            await wait_until(taken_over, seconds=30, what="what the frozen executor held with the other one")
        finally:
            for victim in victims:
                victim.child.resume()
    await _all_succeed(system, expected)


async def test_every_process_is_replaced_under_load(system: System) -> None:
    """A rolling restart, one process after the other: nothing is lost, sent twice, or late by more than moments."""
    cluster = system.cluster
    # A lease as long as in production: should one run out, then because somebody did not hand back.
    for scheduler in cluster.schedulers:
        await scheduler.child.stop()
        scheduler.start(PUNCTUAL_LEASE_SECONDS="15")
        await scheduler.ready()
    async with under_load(cluster, per_second=20) as expected:
        await cluster.wait_arrivals(20)
        for service in cluster.services:
            seen = len(cluster.arrivals())
            await service.child.stop(seconds=25)
            assert await service.child.wait() == 0, f"{service.name} did not hand back in time"
            service.start()
            await service.ready()
            await cluster.wait_arrivals(seen + 1)
    report = await _all_succeed(system, expected)
    assert report.lost == 0
    assert report.doubled == 0
    print(f"rolling restart: largest lag {report.max_lag:.3f} s")


async def test_redis_forgets_everything_under_load(system: System) -> None:
    cluster = system.cluster
    # A slow target and few slots keep entries on the stream, so that there is something to forget.
    for executor in cluster.executors:
        await executor.child.stop()
        executor.start(PUNCTUAL_EXECUTOR_CONCURRENCY="5", PUNCTUAL_EXECUTOR_PREFETCH="5")
    await asyncio.gather(*(executor.ready() for executor in cluster.executors))
    forgotten = 0
    async with under_load(cluster, "slow/100", per_second=50) as expected, Redis.from_url(system.redis_url) as redis:
        for _ in range(3):
            await cluster.wait_arrivals(len(cluster.arrivals()) + 30)
            for key in await redis.keys("*due*"):
                forgotten += await redis.xlen(key)
            await redis.flushall()
    assert forgotten > 0, "nothing was on the stream when it was flushed"
    report = await _all_succeed(system, expected)
    assert report.doubled == 0


async def test_a_thousand_at_one_instant_with_an_executor_killed_half_way(system: System) -> None:
    # A slow target, so that whoever dies holds something.
    async with open_api(system.cluster) as api:
        expected = await create_burst(api, system.cluster.target("slow/500"), 1000, soon(8))
    await system.cluster.wait_arrivals(250)
    system.cluster.executors[0].child.kill()
    report = await _all_succeed(system, expected)
    assert report.lost > 0, "the executor held nothing when it died"


async def test_an_execution_that_kills_its_executors_ends_and_harms_no_other(system: System) -> None:
    cluster, database = system.cluster, system.database
    # Short leases and polls, for each death costs one of both; but no lease so short that starting processes, which
    # take the processor for a second or two, make those of innocent executions run out.
    for service in (*cluster.schedulers, *cluster.executors):
        await service.child.stop()
        service.start(PUNCTUAL_LEASE_SECONDS="3", PUNCTUAL_POLL_INTERVAL_SECONDS="0.2")
    await asyncio.gather(*(service.ready() for service in cluster.services))
    async with open_api(cluster) as api:
        poison = await create_burst(api, cluster.target("slow/60000"), 1, soon(2))
        others = await create_burst(api, cluster.target("ok"), 60, soon(4))
    poisoned = poison[0].execution_id
    deaths = 0
    while (document := await database.executions.find_one({"_id": poisoned})) is None or document["state"] != "FAILED":
        seen = [arrival for arrival in cluster.arrivals() if arrival.execution_id == poisoned]
        if len(seen) > deaths and document is not None:
            deaths += 1
            await _kill_holder(cluster, document["executor_id"])
        await asyncio.sleep(0.02)
    # A lease may run out by itself on a slow machine, which is a loss as well.
    lost = [attempt for attempt in document["attempts"] if attempt["outcome"] == "LOST"]
    assert len(lost) == 5
    assert 3 <= deaths <= 5
    assert document["state_reason"] == "EXECUTOR_LOST_REPEATEDLY"
    await wait_final(database, 1 + len(others))
    report = await check(database, cluster.arrivals(), [*poison, *others])
    report.assert_clean()
    assert report.states == {"FAILED": 1, "SUCCEEDED": len(others)}


async def _kill_holder(cluster: Cluster, executor_id: str) -> None:
    """Do to an executor what the execution that it holds does to it; it starts again at once."""
    for executor in cluster.executors:
        if f"-{executor.child.pid}-" in executor_id:
            executor.child.kill()
            executor.start()
            return
    raise AssertionError(f"no executor is {executor_id}")


async def test_without_dispatchers_fires_wait_and_are_made_up_for(system: System) -> None:
    cluster = system.cluster
    for dispatcher in cluster.dispatchers:
        await dispatcher.child.stop()
    async with open_api(cluster) as api:
        expected = await create_burst(api, cluster.target("ok"), 20, soon(1))
    await asyncio.sleep(2)
    assert not cluster.arrivals()
    assert await system.database.executions.count_documents({}) == 0
    for dispatcher in cluster.dispatchers:
        dispatcher.start()
    report = await _all_succeed(system, expected)
    assert report.doubled == 0


async def test_a_report_with_a_stale_token_changes_nothing(system: System) -> None:
    cluster, database = system.cluster, system.database
    executor = cluster.executors[0]
    await cluster.executors[1].child.stop()
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
    await wait_until(executor.is_ready, seconds=20, what="the zombie's return")
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
