"""Redis fails over, is gone, or loses a shard under load: nothing is lost or sent twice; executors poll meanwhile."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from redis.asyncio import Redis

from tests.e2e.conftest import Database
from tests.support.checker import Expected, Report, check
from tests.support.cluster import Cluster, ServiceProcess
from tests.support.load import under_load, wait_final
from tools.devstack.ports import LOOPBACK, free_ports
from tools.devstack.valkey import ValkeyProcess
from tools.devstack.valkey_cluster import ValkeyCluster
from tools.devstack.valkey_sentinel import ValkeySentinelSet
from tools.devstack.waiting import wait_until

NOTICED_SECONDS = 2.0
SWITCH_SECONDS = 20.0
"""For one change of mode on a busy machine; the time that it took is printed."""
POLLING_PER_SECOND = 100
POLLING_SECONDS = 6


async def _all_succeed(cluster: Cluster, database: Database, expected: Sequence[Expected]) -> Report:
    await wait_final(database, len(expected))
    report = await check(database, cluster.arrivals(), expected)
    report.assert_clean()
    assert report.states == {"SUCCEEDED": len(expected)}
    assert report.doubled == 0
    return report


async def _mode(executors: Sequence[ServiceProcess], *, streams: bool) -> float:
    """Wait until all executors say that they deliver by the streams alone, or not; return how long that took."""
    began = time.monotonic()

    async def switched() -> bool:
        said = await asyncio.gather(*(executor.health("streams") for executor in executors))
        return all(one is streams for one in said)

    await wait_until(switched, seconds=SWITCH_SECONDS, what="STREAMS" if streams else "POLLING")
    return time.monotonic() - began


async def _entries_added(server: ValkeyProcess, key: str) -> int:
    # Entries are bytes that are no text, so not through the server's own client.
    async with Redis(host=LOOPBACK, port=server.port) as redis:
        return int((await redis.xinfo_stream(key))["entries-added"])


async def test_sentinel_promotes_a_replica_that_misses_entries_and_then_all_is_gone(
    mongo_uri: str, mongo_database: str, database: Database, tmp_path: Path
) -> None:
    async with ValkeySentinelSet(tmp_path / "valkey") as valkey:
        cluster = Cluster(tmp_path, mongo_uri, mongo_database, valkey.url, dispatchers=2, executors=2)
        try:
            await cluster.start()
            failed_over = await _fail_over(valkey, cluster, mongo_database)
            polled = await _without_redis(valkey, cluster)
            report = await _all_succeed(cluster, database, [*failed_over, *polled])
            print(f"largest lag {report.max_lag:.3f} s")
            paths = await database.executions.distinct("delivery_path")
            assert set(paths) == {"STREAM", "POLL"}
        finally:
            await cluster.stop()


async def _fail_over(valkey: ValkeySentinelSet, cluster: Cluster, prefix: str) -> list[Expected]:
    """Cut the replica off, let entries be acknowledged that it does not get, and kill the primary."""
    key = f"{prefix}:{{due-0}}"
    before = await valkey.primary_index()
    replica = valkey.servers[1 - before]
    async with under_load(cluster, per_second=25) as expected:
        await cluster.wait_arrivals(10)
        # With the sentinels awake, they would mend it at once; not for long, or they would distrust their clocks.
        for sentinel in valkey.sentinels:
            sentinel.process.suspend()
        await replica.command("REPLICAOF", LOOPBACK, free_ports(1)[0])
        replicated = await _entries_added(replica, key)

        async def acknowledged_more() -> bool:
            return await _entries_added(valkey.servers[before], key) > replicated

        await wait_until(acknowledged_more, seconds=10, what="entries that the replica does not get")
        acknowledged = await _entries_added(valkey.servers[before], key)
        valkey.kill(before)
        replicated = await _entries_added(replica, key)
        assert acknowledged > replicated, "the replica had everything"
        for sentinel in valkey.sentinels:
            sentinel.process.resume()
        promoted = await valkey.wait_promoted(previous=before, seconds=60)
        assert promoted != before
    await valkey.restart(before)
    await cluster.wait_arrivals(len(expected), seconds=60)
    await _mode(cluster.executors, streams=True)
    print(f"{acknowledged - replicated} acknowledged entries lost")
    return expected


async def _without_redis(valkey: ValkeySentinelSet, cluster: Cluster) -> list[Expected]:
    """Kill all servers under load, and start them again when all has come by the poll path.

    Returns the fires that were due while the executors polled.
    """
    before = len(cluster.arrivals())
    async with under_load(cluster, per_second=POLLING_PER_SECOND) as expected:
        await cluster.wait_arrivals(before + POLLING_PER_SECOND)
        for index in range(len(valkey.servers)):
            valkey.kill(index)
        print(f"POLLING after {await _mode(cluster.executors, streams=False):.2f} s (goal {NOTICED_SECONDS} s)")
        assert all(await asyncio.gather(*(executor.is_ready() for executor in cluster.executors)))
        polling = time.time()
        await cluster.wait_arrivals(len(cluster.arrivals()) + POLLING_PER_SECOND * POLLING_SECONDS)
    await cluster.wait_arrivals(before + len(expected))
    for index in range(len(valkey.servers)):
        await valkey.restart(index)
    print(f"STREAMS after {await _mode(cluster.executors, streams=True):.2f} s")
    for executor in cluster.executors:
        log = cluster.log(executor)
        assert all(f'"after":"{mode}"' in log for mode in ("POLLING", "RECOVERING", "STREAMS"))
    _print_lags(cluster, [fire for fire in expected if fire.fire_millis / 1000 > polling])
    return expected


def _print_lags(cluster: Cluster, polled: Sequence[Expected]) -> None:
    due = {fire.execution_id: fire.fire_millis / 1000 for fire in polled}
    lags = sorted(
        arrival.at - due[arrival.execution_id] for arrival in cluster.arrivals() if arrival.execution_id in due
    )
    p99 = lags[int(len(lags) * 0.99)]
    print(f"POLLING at {POLLING_PER_SECOND}/s: median {statistics.median(lags):.3f} s, p99 {p99:.3f} s")


async def test_a_shard_of_a_cluster_is_away_and_nodes_that_may_evict_are_told_of(
    mongo_uri: str, mongo_database: str, database: Database, tmp_path: Path
) -> None:
    async with ValkeyCluster(tmp_path / "valkey") as valkey:
        url = "redis+cluster://" + ",".join(f"{LOOPBACK}:{server.port}" for server in valkey.servers)
        cluster = Cluster(tmp_path, mongo_uri, mongo_database, url, executors=2, PUNCTUAL_STREAM_SHARDS="6")
        try:
            await cluster.start()
            async with under_load(cluster, per_second=50) as expected:
                await cluster.wait_arrivals(50)
                keys = [await server.command("KEYS", "*due-*") for server in valkey.servers]
                assert sum(map(len, keys)) == 6
                assert sum(map(bool, keys)) > 1, "all shards are on one node"
                valkey.kill(0)
                await _mode(cluster.executors, streams=False)
            await cluster.wait_arrivals(len(expected), seconds=60)
            await valkey.restart(0)
            await _mode(cluster.executors, streams=True)
            report = await _all_succeed(cluster, database, expected)
            print(f"largest lag {report.max_lag:.3f} s")
            await _refuse_evicting_nodes(valkey, cluster)
        finally:
            await cluster.stop()


async def _refuse_evicting_nodes(valkey: ValkeyCluster, cluster: Cluster) -> None:
    await valkey.servers[1].command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    asked = [cluster.dispatchers[0], cluster.executors[0]]
    for service in asked:
        await service.child.stop()
        service.start()

    async def told() -> bool:
        return all("maxmemory-policy is allkeys-lru; set it to noeviction" in cluster.log(each) for each in asked)

    await wait_until(told, seconds=30, what="a word about eviction")
    assert not any(await asyncio.gather(*(service.is_ready() for service in asked)))
