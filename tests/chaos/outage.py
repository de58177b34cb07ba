"""An outage by the clock: `python -m tests.chaos.outage [--minutes 10] [--jobs 300]`, run by hand.

Jobs that fire every minute, a third of them under each catch-up policy, while nothing of Punctual runs. Prints how many
requests a second the return of the services makes, and what the record says of the fires that did not run.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from punctual.v1 import job_pb2, schedule_pb2
from pymongo import AsyncMongoClient

from tests.support.cluster import Cluster, open_api
from tests.support.load import create_jobs
from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.valkey import ValkeyServer

DATABASE = "outage"
MODES = (job_pb2.CatchUpPolicy.MODE_LATEST, job_pb2.CatchUpPolicy.MODE_ALL, job_pb2.CatchUpPolicy.MODE_NONE)
WATCHED_SECONDS = 120


async def main() -> None:
    """Run everything in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--jobs", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outage-") as name:
        folder = Path(name)
        async with MongoReplicaSet(folder / "mongo") as mongo, ValkeyServer(folder / "valkey") as valkey:
            cluster = Cluster(folder, mongo.uri, DATABASE, valkey.url, schedulers=2, dispatchers=2, executors=2)
            try:
                await cluster.start()
                async with AsyncMongoClient[dict[str, Any]](mongo.uri, tz_aware=True) as client:
                    await _measure(cluster, client[DATABASE], arguments.jobs, arguments.minutes)
            finally:
                await cluster.stop()


async def _measure(cluster: Cluster, database: Any, count: int, minutes: float) -> None:
    async with open_api(cluster) as api:
        await create_jobs(api, [_minutely(index, cluster.target("ok")) for index in range(count)])
    for service in reversed(cluster.services):
        await service.child.stop(seconds=25)
    stopped = datetime.now(UTC)
    before = len(cluster.arrivals())
    print(f"everything is stopped for {minutes:g} minutes")
    await asyncio.sleep(minutes * 60)
    for service in cluster.services:
        service.start()
    await asyncio.gather(*(service.ready() for service in cluster.services))
    back = datetime.now(UTC)
    await asyncio.sleep(WATCHED_SECONDS)
    arrivals = cluster.arrivals()[before:]
    # Fires of their own minute are no catching up: they come on the dot.
    stored = database.executions.find({}, {"fire_time": 1})
    fires = {document["_id"]: document["fire_time"] async for document in stored}
    late = sorted(arrival.at for arrival in arrivals if fires[arrival.execution_id] < back)
    most = max(Counter(int(at - late[0]) for at in late).values())
    print(f"{len(late)} missed fires ran within {late[-1] - late[0]:.0f} s, at most {most} in a second")
    print(f"the first one {late[0] - back.timestamp():+.1f} s after the services were ready")
    missed = {"fire_time": {"$gt": stopped, "$lt": back}}
    grouped = database.executions.aggregate(
        [{"$match": missed}, {"$group": {"_id": ["$state", "$state_reason"], "count": {"$sum": 1}}}]
    )
    for group in sorted([(*document["_id"], document["count"]) async for document in await grouped]):
        print(*group)
    doubled = Counter(arrival.execution_id for arrival in arrivals)
    print(f"{sum(times > 1 for times in doubled.values())} executions were sent more than once")


def _minutely(index: int, url: str) -> job_pb2.Job:
    return job_pb2.Job(
        name=f"minutely-{index}",
        schedule=schedule_pb2.Schedule(cron=schedule_pb2.CronRule(expression="* * * * *")),
        target=job_pb2.Target(url=url, prompt="now"),
        overlap_policy=job_pb2.OVERLAP_POLICY_ALLOW,
        catch_up_policy=job_pb2.CatchUpPolicy(mode=MODES[index % len(MODES)]),
    )


if __name__ == "__main__":
    asyncio.run(main())
