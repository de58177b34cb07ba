"""Instants on the scheduler's clock, and the wait for them: never early, and late only by what the loop is busy with.

An alarm is only a hint: the clock is asked again at every ring, an early ring is set anew, and a long wait is cut into
naps, so that a step of the wall clock or a new clock correction is noticed within a second.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta

from services.executor.usecases.ports import AlarmFactory, SchedulerClock

LONGEST_NAP = timedelta(seconds=1)
_SHORTEST_NAP = timedelta(microseconds=20)


class InstantAlarm:
    """An alarm that is set to an instant, and to no other one until it rang or is set to an earlier one."""

    def __init__(self, make_alarm: AlarmFactory, on_ring: Callable[[], None]) -> None:
        self._on_ring = on_ring
        self._rings_at: datetime | None = None
        self._alarm = make_alarm(self._ring)

    def set(self, instant: datetime, now: datetime) -> None:
        """Ring at an instant, or at the end of a nap before."""
        rings_at = min(instant, now + LONGEST_NAP)
        if self._rings_at is not None and now < self._rings_at <= rings_at:
            return
        self._rings_at = rings_at
        self._alarm.set(max(rings_at - now, _SHORTEST_NAP).total_seconds())

    def cancel(self) -> None:
        """Do not ring."""
        if self._rings_at is not None:
            self._alarm.cancel()
            self._rings_at = None

    def _ring(self) -> None:
        self._rings_at = None
        self._on_ring()


class Instants:
    """Lets tasks wait for instants; one heap and one alarm serve them all."""

    def __init__(self, clock: SchedulerClock, make_alarm: AlarmFactory) -> None:
        self._clock = clock
        self._order = itertools.count()
        self._waiting: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._alarm = InstantAlarm(make_alarm, self._wake)

    async def wait_for(self, instant: datetime) -> datetime:
        """Return at an instant, or at once when it is past, what the clock shows then."""
        while (now := self._clock.now()) < instant:
            reached = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (instant, next(self._order), reached))
            self._alarm.set(self._waiting[0][0], now)
            await reached
        return now

    def _wake(self) -> None:
        now = self._clock.now()
        # What nobody waits for any more was cancelled.
        while self._waiting and (self._waiting[0][0] <= now or self._waiting[0][2].done()):
            reached = heapq.heappop(self._waiting)[2]
            if not reached.done():
                reached.set_result(None)
        if self._waiting:
            self._alarm.set(self._waiting[0][0], now)
