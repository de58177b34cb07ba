"""Many executions due at once with a slow target: `python -m tests.chaos.overload`, run by hand.

Prints what promise P10 and fairness are judged by: the memory of each process, the API's latency beside that of an idle
system, how evenly the backlog drains, and how long an org with ten jobs waits behind one with all the others.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from punctual.v1 import job_service_pb2
from pymongo import AsyncMongoClient

from tests.support.checker import check
from tests.support.cluster import Api, Cluster, of_org, open_api
from tests.support.load import create_burst, soon, wait_final
from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.valkey import ValkeyServer

DATABASE = "overload"
SLOW = "slow/200"
SMALL = 10
CREATES_PER_SECOND = 400
"""What the due instant counts on."""
DRAIN_SECONDS = 1800.0


async def main() -> None:
    """Run everything in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--apart", action="store_true", help="a scheduler of its own serves the API's callers")
    arguments = parser.parse_args()
    count: int = arguments.count
    with tempfile.TemporaryDirectory(prefix="overload-") as name:
        folder = Path(name)
        async with (
            MongoReplicaSet(folder / "mongo", cache_gigabytes=1) as mongo,
            ValkeyServer(folder / "valkey") as valkey,
        ):
            limits = {"PUNCTUAL_DEFAULT_HOST_CONCURRENT_REQUESTS": "0", "PUNCTUAL_LEASE_SECONDS": "15"}
            cluster = Cluster(
                folder,
                mongo.uri,
                DATABASE,
                valkey.url,
                dispatchers=2,
                executors=2,
                for_callers=1 if arguments.apart else 0,
                **limits,
            )
            try:
                await cluster.start()
                async with AsyncMongoClient[dict[str, Any]](mongo.uri) as client, open_api(cluster) as api:
                    await _measure(cluster, api, client[DATABASE], count)
            finally:
                await cluster.stop()


async def _measure(cluster: Cluster, api: Api, database: Any, count: int) -> None:
    at = soon(10 + count / CREATES_PER_SECOND)
    many = await create_burst(api, cluster.target(SLOW), count, at, org="many")
    few = await create_burst(api, cluster.target(SLOW), SMALL, at, org="few")
    idle = await _latencies(api, few[0].job_id, until=time.time() + 3)
    print(f"created in time: {time.time() < at.timestamp()}; idle API p99 {_p99(idle) * 1000:.1f} ms")
    memory: dict[str, list[int]] = {}
    watching = asyncio.create_task(_watch_memory(cluster, memory))
    draining = asyncio.create_task(wait_final(database, count + SMALL, seconds=DRAIN_SECONDS))
    await asyncio.sleep(max(0.0, at.timestamp() - time.time()))
    busy: list[float] = []
    while not draining.done():
        busy += await _latencies(api, few[0].job_id, until=time.time() + 2)
    await draining
    watching.cancel()
    report = await check(database, cluster.arrivals(), [*many, *few])
    report.assert_clean()
    lags = [arrival.at - at.timestamp() for arrival in cluster.arrivals()]
    small = {fire.execution_id for fire in few}
    waited = [arrival.at - at.timestamp() for arrival in cluster.arrivals() if arrival.execution_id in small]
    per_tenth = Counter(min(int(10 * lag / max(lags)), 9) for lag in lags)
    print(report.summary())
    print(f"API p99 {_p99(busy) * 1000:.1f} ms, {_p99(busy) / _p99(idle):.1f} times idle")
    print(f"drained in {max(lags):.1f} s; requests in each tenth of it: {[per_tenth[tenth] for tenth in range(10)]}")
    print(f"org with {SMALL} jobs: median {statistics.median(waited):.2f} s, last {max(waited):.2f} s")
    for name, sizes in memory.items():
        print(f"{name}: {sizes[0]} MiB before, {max(sizes)} MiB at most, {sizes[-1]} MiB after")


async def _latencies(api: Api, job_id: str, *, until: float) -> list[float]:
    """Ask for a job again and again; return how long each answer took."""
    found = []
    while time.time() < until:
        began = time.perf_counter()
        await api.jobs.GetJob(job_service_pb2.GetJobRequest(job_id=job_id), metadata=of_org("few"), timeout=30)
        found.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    return found


async def _watch_memory(cluster: Cluster, memory: dict[str, list[int]]) -> None:
    """Note the resident memory of each process, MiB, twice a second."""
    while True:
        for service in cluster.services:
            status = Path(f"/proc/{service.child.pid}/status").read_text(encoding="ascii")
            kilobytes = int(status.partition("VmRSS:")[2].split()[0])
            memory.setdefault(service.name, []).append(kilobytes // 1024)
        await asyncio.sleep(0.5)


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


if __name__ == "__main__":
    asyncio.run(main())
