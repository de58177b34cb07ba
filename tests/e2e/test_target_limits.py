"""Limits of targets with several executors: what the target sees, what an execution pays, and the operator's hand.

The window of a limit is shortened by `rate_window_seconds`; the rules are the same for a minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from punctual.v1 import execution_service_pb2, job_pb2, target_host_service_pb2
from punctual.v1.target_host_pb2 import TargetHost
from pymongo.asynchronous.database import AsyncDatabase

from tests.e2e.conftest import StartCluster
from tests.support.checker import check
from tests.support.cluster import ORG, Api, Cluster, open_api
from tests.support.load import create_burst, soon, wait_final
from tools.devstack.waiting import wait_until

Database = AsyncDatabase[dict[str, Any]]
LIMIT = 20
WINDOW = 2.0
COUNTED_WINDOW = 2.5
"""What a window counts for: the slack for the way to the target is half a second at least."""
JOBS = 100
OVERHEAD_SECONDS = 12.0
"""Beyond what the limit dictates: handing over, a poll that gathers a straggler, and a busy machine."""
PATIENT = {"PUNCTUAL_LIMITS_CALL_SECONDS": "5", "PUNCTUAL_LEASE_SECONDS": "15"}
"""So that a busy machine does not look like a Redis that is away, or like an executor that died."""
ONCE = job_pb2.RetryPolicy(max_attempts=1)


def _host(cluster: Cluster) -> str:
    """Return the sink's host, with its port."""
    return cluster.target("").removeprefix("http://").rstrip("/")


async def _listed(api: Api) -> TargetHost:
    answer = await api.target_hosts.ListTargetHosts(target_host_service_pb2.ListTargetHostsRequest(), metadata=ORG)
    return answer.target_hosts[0] if answer.target_hosts else TargetHost()


def _most_in_a_window(instants: Sequence[float], window: float) -> int:
    """Return the most arrivals in any window, open at its end."""
    ordered = sorted(instants)
    return max(sum(1 for at in ordered if start <= at < start + window) for start in ordered)


async def test_a_limited_target_gets_its_rate_and_no_execution_pays_for_it(
    start_cluster: StartCluster, database: Database
) -> None:
    cluster = await start_cluster(executors=3, PUNCTUAL_RATE_WINDOW_SECONDS=str(WINDOW), **PATIENT)
    async with open_api(cluster) as api:
        limit = target_host_service_pb2.SetTargetHostLimitRequest(host=_host(cluster), max_requests_per_minute=LIMIT)
        await api.target_hosts.SetTargetHostLimit(limit, metadata=ORG)
        expected = await create_burst(api, cluster.target("ok"), JOBS, soon(4))
        await cluster.wait_arrivals(LIMIT)

        # Those that wait say until when, and by which limit.
        async def some_wait() -> bool:
            found = await database.executions.find_one({"phase": "WAITING", "deferral_count": 1})
            if found is None:
                return False
            request = execution_service_pb2.GetExecutionRequest(execution_id=found["_id"])
            shown = await api.executions.GetExecution(request, metadata=ORG)
            return shown.wait_reason == "TARGET_RATE_LIMIT" and shown.HasField("next_attempt_time")

        await wait_until(some_wait, seconds=20, what="an execution that says what it waits for")
        await wait_final(database, JOBS)
    report = await check(database, cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": JOBS}
    assert report.doubled == 0
    instants = [arrival.at for arrival in cluster.arrivals()]
    most = _most_in_a_window(instants, WINDOW)
    took = max(instants) - min(instants)
    dictated = (JOBS // LIMIT - 1) * COUNTED_WINDOW
    executions = [document async for document in database.executions.find({}, {"attempts": 1, "deferral_count": 1})]
    deferrals = Counter(document.get("deferral_count", 0) for document in executions)
    figures = f"most in {WINDOW} s: {most}, took {took:.1f} s of {dictated:.1f} s, deferrals {dict(deferrals)}"
    print(figures)
    assert most <= LIMIT, figures
    assert took <= dictated + OVERHEAD_SECONDS, figures
    assert all([attempt["number"] for attempt in document["attempts"]] == [1] for document in executions), figures
    assert max(deferrals) <= 3, figures
    assert sum(count * times for times, count in deferrals.items()) <= 1.5 * JOBS, figures
    assert len(await database.executions.distinct("executor_id")) == 3


async def test_an_open_circuit_is_shown_costs_no_attempt_and_is_reset_by_hand(
    start_cluster: StartCluster, database: Database
) -> None:
    cluster = await start_cluster(
        executors=2, PUNCTUAL_CIRCUIT_MIN_CALLS="10", PUNCTUAL_CIRCUIT_OPEN_SECONDS="120", **PATIENT
    )
    async with open_api(cluster) as api:
        failing = await create_burst(api, cluster.target("status/503"), 20, soon(1.5), retry_policy=ONCE)
        await cluster.wait_arrivals(10)

        async def shown() -> bool:
            host = await _listed(api)
            return host.circuit == TargetHost.CIRCUIT_OPEN and host.wait_reason == "CIRCUIT_OPEN"

        await wait_until(shown, seconds=10, what="the open circuit in ListTargetHosts")
        waiting = await create_burst(api, cluster.target("ok"), 10, soon(0.5))
        ids = [fire.execution_id for fire in waiting]

        async def all_deferred() -> bool:
            deferred = {"_id": {"$in": ids}, "wait_reason": "CIRCUIT_OPEN", "attempt_number": 0}
            return await database.executions.count_documents(deferred) == len(ids)

        await wait_until(all_deferred, seconds=10, what="the deferrals by the circuit")
        request = target_host_service_pb2.ResetTargetHostRequest(host=_host(cluster))
        reset = await api.target_hosts.ResetTargetHost(request, metadata=ORG)
        assert (reset.circuit, reset.reset_count) == (TargetHost.CIRCUIT_UNSPECIFIED, 1)
        # Long before the circuit would have let them through.
        await wait_final(database, 30, seconds=20)
    report = await check(database, cluster.arrivals(), [*failing, *waiting])
    report.assert_clean()
    done = [document async for document in database.executions.find({"_id": {"$in": ids}})]
    assert {document["state"] for document in done} == {"SUCCEEDED"}
    assert {attempt["number"] for document in done for attempt in document["attempts"]} == {1}
