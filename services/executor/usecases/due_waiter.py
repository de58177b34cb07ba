"""Starts each attempt at its instant, which is its due time or its slot within a limit: never early, oldest first, no
more at a time than there are request slots.

One heap and one alarm serve all waiting attempts, so that the process wakes once for each distinct due instant,
however many attempts share it. The alarm is only a hint: the clock is asked again at every ring, an early ring is set
anew, and a long wait is cut into naps, so that a step of the wall clock or a new clock correction is noticed within a
second.

No await anywhere: an alarm's ring leads to the started attempts in one turn of the event loop.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from services.executor.usecases.held_attempts import Held
from services.executor.usecases.ports import AlarmFactory, SchedulerClock

StartAttempt = Callable[[Held, Callable[[], None]], None]
"""Starts an attempt; the second argument gives its request slot back, to be called once."""

LONGEST_NAP = timedelta(seconds=1)
_SHORTEST_NAP = timedelta(microseconds=20)


class DueWaiter:
    """Holds attempts back until they are due and a request slot is free."""

    def __init__(self, clock: SchedulerClock, make_alarm: AlarmFactory, start: StartAttempt, concurrency: int) -> None:
        self._clock = clock
        self._start = start
        self._concurrency = concurrency
        self._running = 0
        self._order = itertools.count()
        self._heap: list[tuple[datetime, int, Held]] = []
        self._rings_at: datetime | None = None
        self._alarm = make_alarm(self._ring)

    @property
    def running(self) -> int:
        """How many request slots are taken."""
        return self._running

    def add(self, attempts: Iterable[Held]) -> None:
        """Hold these back; what is due already starts before this returns, what is aborted meanwhile never does."""
        for held in attempts:
            heapq.heappush(self._heap, (held.start_time, next(self._order), held))
        self._advance()

    def _slot_freed(self) -> None:
        self._running -= 1
        self._advance()

    def _ring(self) -> None:
        self._rings_at = None
        self._advance()

    def _advance(self) -> None:
        now = self._clock.now()
        while self._heap and self._running < self._concurrency:
            due, _, held = self._heap[0]
            if held.abort is None and due > now:
                break
            heapq.heappop(self._heap)
            if held.abort is None:
                self._running += 1
                self._start(held, self._slot_freed)
        self._set_alarm(now)

    def _set_alarm(self, now: datetime) -> None:
        """Set the alarm for the first due instant; not while every slot is taken, since a freed slot looks anyway."""
        if not self._heap or self._running >= self._concurrency:
            if self._rings_at is not None:
                self._alarm.cancel()
                self._rings_at = None
            return
        rings_at = min(self._heap[0][0], now + LONGEST_NAP)
        if self._rings_at is not None and now < self._rings_at <= rings_at:
            return
        self._rings_at = rings_at
        self._alarm.set(max(rings_at - now, _SHORTEST_NAP).total_seconds())
