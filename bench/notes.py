"""The sink as a scenario sees it: started, asked for what arrived, stopped."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.devstack.ports import LOOPBACK, free_ports, is_listening
from tools.devstack.process import ChildProcess

Note = tuple[int, str]
"""An arrival: wall-clock nanoseconds, and the id of what was executed."""


@dataclass(frozen=True)
class Sink:
    """A running sink."""

    port: int

    @property
    def url(self) -> str:
        """Where to POST."""
        return f"http://{LOOPBACK}:{self.port}/v1/prompt"

    async def take_notes(self) -> list[Note]:
        """Return and forget what has arrived."""
        return await asyncio.to_thread(self._fetch)

    def _fetch(self) -> list[Note]:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/notes") as answer:
            lines = answer.read().decode().splitlines()
        return [(int(line.partition(" ")[0]), line.partition(" ")[2]) for line in lines]


@asynccontextmanager
async def running_sink(folder: Path) -> AsyncIterator[Sink]:
    """Run a sink while the body runs."""
    (port,) = free_ports(1)
    argv = [sys.executable, "-m", "bench.sink", "--port", str(port)]
    process = ChildProcess("sink", argv, output=folder / "sink.log")
    process.start()
    try:

        async def listening() -> bool:
            return is_listening(port)

        await process.wait_ready(listening, seconds=30)
        yield Sink(port)
    finally:
        await process.stop()
