"""What several Valkey servers have in common, whatever binds them together: started, ended and hurt by index."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from tools.devstack.valkey import ValkeyProcess


class ValkeySet(ABC):
    """Servers that live between `start` and `stop`, or inside of `async with`; `servers` holds those with data."""

    def __init__(self) -> None:
        self.servers: list[ValkeyProcess] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start all servers and wait until they serve together; on failure leave none running."""
        try:
            await self._form()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End all servers."""
        await asyncio.gather(*(server.process.stop() for server in self._all()))

    def kill(self, index: int) -> None:
        """Kill a server with SIGKILL."""
        self.servers[index].process.kill()

    def suspend(self, index: int) -> None:
        """Freeze a server (SIGSTOP): its connections stay open and nothing answers."""
        self.servers[index].process.suspend()

    def resume(self, index: int) -> None:
        """Let a frozen server go on (SIGCONT)."""
        self.servers[index].process.resume()

    async def restart(self, index: int) -> None:
        """Stop a server if it runs and start it on its old port, data and present configuration."""
        await self.servers[index].restart()

    def _all(self) -> list[ValkeyProcess]:
        return self.servers

    @abstractmethod
    async def _form(self) -> None:
        """Start the servers and bind them together; return when they serve."""
