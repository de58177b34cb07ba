"""What a scenario is given: where to put its files, how large to be, and a running system."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Result
from bench.system import System, running_system


@dataclass
class Run:
    """One run of the suite. Quick runs are smaller and share one system, which each scenario finds empty."""

    folder: Path
    quick: bool
    with_peers: bool
    growth_jobs: int
    """Jobs that the growth scenario loads; five times as many executions go with them."""
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _shared: System | None = None
    _folders: itertools.count[int] = field(default_factory=itertools.count)

    def size(self, full: int, quick: int) -> int:
        """Return one of two sizes."""
        return quick if self.quick else full

    def new_folder(self) -> Path:
        """Return an empty folder."""
        folder = self.folder / str(next(self._folders))
        folder.mkdir()
        return folder

    @asynccontextmanager
    async def system(self, *, executors: int = 1) -> AsyncIterator[System]:
        """Give a system without jobs while the body runs."""
        if not self.quick or executors != 1:
            async with running_system(self.new_folder(), executors=executors) as system:
                yield system
            return
        if self._shared is None:
            self._shared = await self._stack.enter_async_context(running_system(self.new_folder()))
        yield self._shared
        await self._shared.clear()

    async def close(self) -> None:
        """Stop what is shared."""
        await self._stack.aclose()
        self._shared = None


Scenario = Callable[[Run], Awaitable[list[Result]]]
"""Measures something, and returns a result for each system that it measured."""
