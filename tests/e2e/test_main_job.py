"""The main job over the whole system: it fires on the dot, once, and its answer is stored."""

from __future__ import annotations

from punctual.v1 import execution_pb2, execution_service_pb2

from tests.e2e.conftest import System
from tests.support.checker import check
from tests.support.cluster import ORG, open_api
from tests.support.load import create_burst, soon, wait_final


async def test_a_one_time_job_fires_on_the_dot_and_keeps_its_answer(system: System) -> None:
    cluster, database = system.cluster, system.database
    async with open_api(cluster) as api:
        expected = await create_burst(api, cluster.target("ok"), 1, soon(3))
        await wait_final(database, 1)
        request = execution_service_pb2.GetExecutionRequest(execution_id=expected[0].execution_id)
        execution = await api.executions.GetExecution(request, metadata=ORG)
    report = await check(database, cluster.arrivals(), expected)
    report.assert_clean()
    assert execution.state == execution_pb2.Execution.STATE_SUCCEEDED
    assert execution.response.status_code == 200
    assert expected[0].execution_id.encode() in execution.response.body
    assert execution.delivery_path == execution_pb2.DELIVERY_PATH_STREAM


async def test_a_job_created_inside_the_horizon_does_not_wait_for_the_next_tick(system: System) -> None:
    cluster, database = system.cluster, system.database
    async with open_api(cluster) as api:
        expected = await create_burst(api, cluster.target("ok"), 20, soon(0.7))
        await wait_final(database, 20)
    report = await check(database, cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": 20}
    assert report.doubled == 0


async def test_failed_attempts_are_retried_under_the_same_key(system: System) -> None:
    cluster, database = system.cluster, system.database
    async with open_api(cluster) as api:
        expected = await create_burst(api, cluster.target("flaky/1"), 5, soon(2))
        await wait_final(database, 5)
    report = await check(database, cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": 5}
    assert report.requests == 10
    attempts = {arrival.attempt for arrival in cluster.arrivals()}
    assert attempts == {1, 2}
