"""A node of a Redis Cluster that hangs, and whose slots another node has by now: nobody tells its clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from punctual.internal.v1.stream_entry_pb2 import StreamEntry

from libs.common.errors import UnavailableError
from libs.common.streams.connection import open_redis
from libs.common.streams.due_stream import DueStream
from services.executor.adapters.redis_gates.gates import RedisGates
from services.executor.domain.gate_values import GateRules
from tools.devstack.valkey_cluster import SLOTS, ValkeyCluster
from tools.devstack.waiting import wait_until

SHARDS = 8
"""So many that each node has some of them."""


async def test_a_node_that_hangs_is_left_when_another_one_has_its_slots(server_folder: Path) -> None:
    async with ValkeyCluster(server_folder) as cluster:
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in cluster.servers)
        stream = DueStream(open_redis(url), shards=SHARDS)
        gates = [
            RedisGates(open_redis(url, call_seconds=0.5), key_prefix=f"p{n}", rules=GateRules(), call_seconds=0.5)
            for n in range(SHARDS)
        ]

        async def use_all() -> None:
            await stream.add([(shard, StreamEntry(execution_id="e1")) for shard in range(SHARDS)])
            for each in gates:
                await each.sign_of_life("x1", 1)

        await use_all()
        await take_over_from_the_first(cluster)
        try:
            await wait_until(succeeds(use_all), seconds=20, what="streams and gates at their new node")
        finally:
            cluster.resume(0)
            await stream.close()
            for each in gates:
                await each.close()


async def take_over_from_the_first(cluster: ValkeyCluster) -> None:
    """Freeze the first node, and let the second one have its slots, as a replica has them that was promoted."""
    heir = await cluster.servers[1].command("CLUSTER MYID")
    cluster.suspend(0)
    for server in cluster.servers[1:]:
        async with server.client() as client:
            pipeline = client.pipeline(transaction=False)
            for slot in range(SLOTS // len(cluster.servers)):
                pipeline.execute_command("CLUSTER SETSLOT", slot, "NODE", heir)
            await pipeline.execute()


def succeeds(use: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[bool]]:
    async def tried() -> bool:
        try:
            await use()
        except UnavailableError:
            return False
        return True

    return tried
