"""A Valkey primary with replicas, watched by sentinels that promote a replica when the primary is silent.

For tests of failover: a promotion forgets what had not been replicated, which is exactly what Punctual must survive.
The folder must be new, since roles and configuration of an earlier set would not fit the new ports.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from redis.exceptions import RedisError

from tools.devstack.ports import LOOPBACK, free_ports
from tools.devstack.valkey import DURABLE_SETTINGS, START_SECONDS, ValkeyProcess
from tools.devstack.valkey_set import ValkeySet
from tools.devstack.waiting import wait_until

SERVICE_NAME = "punctual"


class ValkeySentinelSet(ValkeySet):
    """One primary (first of `servers`), `replicas` and `sentinels`, which need a majority to promote.

    Args:
        folder: a new folder for data, configuration and logs.
        replicas: at least 1.
        sentinels: an odd number.
        down_after_seconds: how long the primary may be silent.
    """

    def __init__(self, folder: Path, *, replicas: int = 1, sentinels: int = 3, down_after_seconds: float = 1.0) -> None:
        super().__init__()
        ports = free_ports(1 + replicas + sentinels)
        self._primary_port = ports[0]
        self._down_after_seconds = down_after_seconds
        self.servers = [self._server(folder, index, port) for index, port in enumerate(ports[: 1 + replicas])]
        quorum = sentinels // 2 + 1
        self.sentinels = [
            self._sentinel(folder, index, port, quorum) for index, port in enumerate(ports[1 + replicas :])
        ]

    @property
    def url(self) -> str:
        """The sentinels' addresses and the service name, in the form that several clients know."""
        hosts = ",".join(f"{LOOPBACK}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE_NAME}"

    @property
    def sentinel_addresses(self) -> list[tuple[str, int]]:
        """The sentinels as host and port, as redis-py's Sentinel takes them."""
        return [(LOOPBACK, sentinel.port) for sentinel in self.sentinels]

    async def primary_index(self) -> int:
        """Return the index of the server that the first sentinel that answers takes for the primary."""
        for sentinel in self.sentinels:
            try:
                address = await sentinel.command("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE_NAME)
            except RedisError:
                continue
            return [server.port for server in self.servers].index(int(address[1]))
        raise RuntimeError("no sentinel answers")

    async def wait_promoted(self, *, previous: int, seconds: float = 30.0) -> int:
        """Wait until the sentinels name another primary than `previous`, and return it once it takes writes."""

        async def promoted() -> bool:
            index = await self.primary_index()
            return index != previous and await self._role(index) == "master"

        await wait_until(promoted, seconds=seconds, what="promotion of a replica")
        return await self.primary_index()

    def _all(self) -> list[ValkeyProcess]:
        return [*self.sentinels, *self.servers]

    async def _form(self) -> None:
        await asyncio.gather(*(server.start() for server in self.servers))
        # A sentinel asks for the replicas when it starts, and then only every 10 seconds.
        await wait_until(self._replicas_follow, seconds=START_SECONDS, what="replicas that follow")
        await asyncio.gather(*(sentinel.start() for sentinel in self.sentinels))
        # Before the sentinels know the replicas and each other, they could promote nobody.
        await wait_until(self._all_known, seconds=START_SECONDS, what="sentinels that know each other")

    async def _all_known(self) -> bool:
        for sentinel in self.sentinels:
            state = await sentinel.command("SENTINEL MASTER", SERVICE_NAME)
            replicas, others = int(state["num-slaves"]), int(state["num-other-sentinels"])
            if replicas != len(self.servers) - 1 or others != len(self.sentinels) - 1:
                return False
        return True

    async def _replicas_follow(self) -> bool:
        return bool((await self.servers[0].command("INFO", "replication"))["connected_slaves"] == len(self.servers) - 1)

    async def _role(self, index: int) -> str:
        return str((await self.servers[index].command("INFO", "replication"))["role"])

    def _server(self, folder: Path, index: int, port: int) -> ValkeyProcess:
        settings = dict(DURABLE_SETTINGS)
        if port != self._primary_port:
            settings["replicaof"] = f"{LOOPBACK} {self._primary_port}"
            settings["repl-diskless-sync-delay"] = "0"
        return ValkeyProcess(f"valkey-{index}", folder / f"valkey-{index}", port, settings)

    def _sentinel(self, folder: Path, index: int, port: int, quorum: int) -> ValkeyProcess:
        settings = {
            "sentinel monitor": f"{SERVICE_NAME} {LOOPBACK} {self._primary_port} {quorum}",
            "sentinel down-after-milliseconds": f"{SERVICE_NAME} {int(self._down_after_seconds * 1000)}",
            "sentinel failover-timeout": f"{SERVICE_NAME} 5000",
        }
        name = f"sentinel-{index}"
        return ValkeyProcess(name, folder / name, port, settings, arguments=["--sentinel"])
