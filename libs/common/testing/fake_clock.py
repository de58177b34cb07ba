"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta

_SETTLE_TURNS = 30


class FakeClock:
    """Implements `Clock`. `await clock.advance(2)` wakes each sleeper at its instant, in order, then returns."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Return the wall clock."""
        return self._now

    def monotonic(self) -> float:
        """Return the monotonic clock, which `step_wall` does not move."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Wait until a test has advanced the clock this far; nothing or less only yields."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), waiter))
        await waiter

    @property
    def sleepers(self) -> int:
        """How many coroutines wait on this clock."""
        return sum(not waiter.done() for _, _, waiter in self._sleepers)

    async def advance(self, span: float | timedelta) -> None:
        """Move both clocks forward, stopping at each sleeper's instant to let it, and what follows from it, run."""
        seconds = span.total_seconds() if isinstance(span, timedelta) else span
        target = self._monotonic + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            deadline, _, waiter = heapq.heappop(self._sleepers)
            if waiter.done():
                continue
            self._move_to(deadline)
            waiter.set_result(None)
            await settle()
        self._move_to(target)
        await settle()

    def step_wall(self, span: timedelta) -> None:
        """Bend the wall clock only, forward or back, as an operator or NTP does. Nobody wakes."""
        self._now += span

    def _move_to(self, monotonic: float) -> None:
        forward = max(monotonic - self._monotonic, 0.0)
        self._monotonic += forward
        self._now += timedelta(seconds=forward)


async def settle() -> None:
    """Let everything that is ready run until it waits again."""
    for _ in range(_SETTLE_TURNS):
        await asyncio.sleep(0)
