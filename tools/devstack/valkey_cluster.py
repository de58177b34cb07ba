"""A Valkey Cluster of primaries without replicas, each with an equal share of the slots.

For tests of key distribution and of a shard that is away. The folder must be new, since the nodes of an earlier
cluster would not fit the new ports.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tools.devstack.ports import LOOPBACK, free_ports
from tools.devstack.valkey import DURABLE_SETTINGS, START_SECONDS, ValkeyProcess
from tools.devstack.valkey_set import ValkeySet
from tools.devstack.waiting import wait_until

SLOTS = 16_384


class ValkeyCluster(ValkeySet):
    """A cluster of `primaries` nodes, at least 3."""

    def __init__(self, folder: Path, *, primaries: int = 3) -> None:
        super().__init__()
        ports = free_ports(2 * primaries)
        # The nodes' own bus would default to port + 10000, which may be taken.
        self._bus_ports = ports[primaries:]
        self.servers = [
            self._node(folder, index, port, bus)
            for index, (port, bus) in enumerate(zip(ports[:primaries], self._bus_ports, strict=True))
        ]

    @property
    def url(self) -> str:
        """The first node's address, from which a cluster client learns the others."""
        return f"redis://{LOOPBACK}:{self.servers[0].port}/0"

    async def _form(self) -> None:
        await asyncio.gather(*(server.start() for server in self.servers))
        count = len(self.servers)
        for index, server in enumerate(self.servers):
            first, last = SLOTS * index // count, SLOTS * (index + 1) // count - 1
            await server.command("CLUSTER ADDSLOTSRANGE", first, last)
            # Nodes with one epoch would quarrel about it before they agree.
            await server.command("CLUSTER SET-CONFIG-EPOCH", index + 1)
        for server, bus in zip(self.servers[1:], self._bus_ports[1:], strict=True):
            await self.servers[0].command("CLUSTER MEET", LOOPBACK, server.port, bus)
        await wait_until(self._agreed, seconds=START_SECONDS, what="a cluster that agrees")

    async def _agreed(self) -> bool:
        for server in self.servers:
            info = await server.command("CLUSTER INFO")
            if info["cluster_state"] != "ok" or int(info["cluster_known_nodes"]) != len(self.servers):
                return False
        return True

    @staticmethod
    def _node(folder: Path, index: int, port: int, bus: int) -> ValkeyProcess:
        settings = {
            **DURABLE_SETTINGS,
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": "2000",
            "cluster-port": str(bus),
        }
        return ValkeyProcess(f"valkey-{index}", folder / f"valkey-{index}", port, settings)
