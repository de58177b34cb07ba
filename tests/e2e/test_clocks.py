"""Clocks that are off: a scheduler whose is does not serve, and an executor whose is fires on time all the same."""

from __future__ import annotations

from tests.e2e.conftest import System
from tests.support.checker import check
from tests.support.cluster import open_api
from tests.support.load import create_burst, soon, wait_final
from tools.devstack.waiting import wait_until

CLUSTER = {"schedulers": 2}


async def test_a_skewed_scheduler_is_not_ready_and_nothing_fires_early(system: System) -> None:
    cluster = system.cluster
    scheduler, dispatcher, executor = cluster.schedulers[1], cluster.dispatchers[0], cluster.executors[0]
    for service, seconds in ((scheduler, "1.5"), (dispatcher, "-5"), (executor, "5")):
        await service.child.stop()
        service.start_skewed(seconds)
    await dispatcher.ready()
    await executor.ready()

    async def told() -> bool:
        return "this clock is off by -1." in cluster.log(scheduler)

    await wait_until(told, seconds=30, what="a word about the clock")
    assert not await scheduler.is_ready()
    assert await scheduler.health("liveness")
    # As the load balancer of its readiness does, leave it out.
    await scheduler.child.stop()
    async with open_api(cluster) as api:
        expected = await create_burst(api, cluster.target("ok"), 100, soon(4))
        await wait_final(system.database, len(expected))
    report = await check(system.database, cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": 100}
    # By the dispatcher's own clock all would be late by seconds, by the executor's all would be early.
    assert min(report.lags) < 1.5
    print(report.summary())
