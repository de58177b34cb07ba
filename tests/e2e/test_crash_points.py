"""Each crash point on the way of a fire: the process dies there, and every promise holds.

A round takes one point of each service, all at once: what one leaves behind meets what the others leave behind.
"""

from __future__ import annotations

import asyncio
from itertools import zip_longest

import pytest
from punctual.v1 import job_pb2

from libs.common.crash_points import CRASH_EXIT_CODE
from tests.e2e.conftest import System
from tests.support.checker import Expected, check
from tests.support.cluster import Api, Cluster, ServiceProcess, open_api
from tests.support.faults import crash_points
from tests.support.load import create_burst, soon, wait_final

WORK_SECONDS = 8
"""After which there should be new work: the time in which one round of it is done."""
CRASH_SECONDS = 40.0
SERVICES = ("scheduler", "dispatcher", "executor")
POINTS = {service: [name for name in crash_points() if name.startswith(service)] for service in SERVICES}
ROUNDS = [tuple(filter(None, names)) for names in zip_longest(*POINTS.values())]


def _process(cluster: Cluster, point: str) -> ServiceProcess:
    groups = dict(zip(SERVICES, (cluster.schedulers, cluster.dispatchers, cluster.executors), strict=True))
    return groups[point.partition(".")[0]][0]


async def _die(process: ServiceProcess, point: str) -> None:
    """Wait until the process has died at its point, and start it again."""
    code = await asyncio.wait_for(process.child.wait(), CRASH_SECONDS)
    assert code == CRASH_EXIT_CODE, f"{process.name} did not die at {point}"
    process.start(PUNCTUAL_CRASH_POINT="")


@pytest.mark.parametrize("points", ROUNDS, ids="+".join)
async def test_processes_die_between_two_effects(system: System, points: tuple[str, ...]) -> None:
    cluster, database = system.cluster, system.database
    processes = [_process(cluster, point) for point in points]
    await asyncio.gather(*(process.child.stop() for process in processes))
    for process, point in zip(processes, points, strict=True):
        process.start(PUNCTUAL_CRASH_POINT=point)
    await asyncio.gather(*(process.ready() for process in processes))
    async with open_api(cluster) as api, asyncio.TaskGroup() as dying:
        # From the first call on: there are points that a create passes.
        deaths = [dying.create_task(_die(process, point)) for process, point in zip(processes, points, strict=True)]
        expected, never_twice = await _create(cluster, api)
        # It is chance which of two replicas a call reaches: there is work until each process has met its point.
        while (await asyncio.wait(deaths, timeout=WORK_SECONDS))[1]:
            more, more_once = await _create(cluster, api)
            expected += more
            never_twice |= more_once
    await wait_final(database, len(expected))
    report = await check(database, cluster.arrivals(), expected, never_twice=never_twice)
    report.assert_clean()
    assert set(report.states) <= {"SUCCEEDED", "UNKNOWN"}
    unknown = {document["job_id"] async for document in database.executions.find({"state": "UNKNOWN"})}
    assert unknown <= never_twice
    print(f"{'+'.join(points)}: {report.summary()} lost={report.lost}")
    if "executor.posting" in points:
        attempts: dict[str, list[int]] = {}
        for arrival in cluster.arrivals():
            attempts.setdefault(arrival.execution_id, []).append(arrival.attempt)
        assert any(numbers[:2] == [1, 2] for numbers in attempts.values()), "no request was sent again"
        assert report.states["UNKNOWN"] > 0, "no unanswered request was kept from being sent again"


async def _create(cluster: Cluster, api: Api) -> tuple[list[Expected], set[str]]:
    """Create jobs of both kinds; those of the second must never be sent twice."""
    at = soon(4)
    retried = await create_burst(api, cluster.target("slow/300"), 10, at)
    once = await create_burst(
        api, cluster.target("slow/300"), 10, at, on_unknown_outcome=job_pb2.ON_UNKNOWN_OUTCOME_FAIL
    )
    # Large answers go another way, with crash points of its own.
    retried += await create_burst(api, cluster.target("large/300"), 4, at)
    return retried + once, {fire.job_id for fire in once}
