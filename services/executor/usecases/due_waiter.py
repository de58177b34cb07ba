"""Starts each attempt shortly before its instant, which is its due time or its slot within a limit: oldest first, no
more at a time than there are request slots, and no more of an org than its share of them.

What an attempt does before its instant is getting ready, down to a connection that stands; its runner holds back the
request itself. One heap and one alarm serve all waiting attempts, so that the process wakes once for those that are
due together, however many they are.

What is due and finds no slot waits here, and the org that has the fewest slots is served next. What waits long because
its org's share is used up is given away by `turned_away`, or it would keep others out of this executor's bounded room.

No await anywhere: an alarm's ring leads to the started attempts in one turn of the event loop.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from services.executor.domain.org_slots import OrgSlots
from services.executor.usecases.held_attempts import Held
from services.executor.usecases.instants import InstantAlarm
from services.executor.usecases.ports import AlarmFactory, SchedulerClock

StartAttempt = Callable[[Held, Callable[[], None]], None]
"""Starts an attempt; the second argument gives its request slot back, to be called once."""

HEAD_START = timedelta(milliseconds=100)
"""How long before its instant an attempt starts: enough to connect. As gates are asked no sooner, whatever they let
through for its due time starts with their answer, and wakes nobody for it."""
AHEAD_A_TURN = 4
"""How many attempts start ahead of their instant in one turn of the event loop, which others may be due in."""
PATIENCE = timedelta(seconds=2)
"""How long a due attempt waits here for its org to have a slot again."""


class DueWaiter:
    """Holds attempts back until they are due and a request slot is free."""

    def __init__(
        self,
        clock: SchedulerClock,
        make_alarm: AlarmFactory,
        start: StartAttempt,
        concurrency: int,
        *,
        org_share: float = 1.0,
    ) -> None:
        """Take the part of the slots that one org may have."""
        self._clock = clock
        self._start = start
        self._slots = OrgSlots(concurrency, org_share)
        self._order = itertools.count()
        self._heap: list[tuple[datetime, int, Held]] = []
        self._due: dict[str, list[tuple[datetime, int, Held]]] = {}
        """What is due and has no slot yet, a heap for each org."""
        self._alarm = InstantAlarm(make_alarm, self._advance)

    @property
    def running(self) -> int:
        """How many request slots are taken."""
        return self._slots.taken

    def add(self, attempts: Iterable[Held]) -> None:
        """Hold these back; what is due by now starts before this returns, what is aborted meanwhile never does."""
        for held in attempts:
            heapq.heappush(self._heap, (held.start_time, next(self._order), held))
        self._advance()

    def turned_away(self) -> list[tuple[Held, datetime]]:
        """Let go of what has waited long for its org's share; return each with the instant at which to come back."""
        now = self._clock.now()
        away: list[tuple[Held, datetime]] = []
        for org_id, waiting in list(self._due.items()):
            while waiting and self._slots.is_used_up(org_id) and waiting[0][0] + PATIENCE <= now:
                held = heapq.heappop(waiting)[2]
                if held.abort is None:
                    away.append((held, self._slots.turn(org_id, now)))
            if not waiting:
                del self._due[org_id]
        return away

    def _advance(self) -> None:
        now = self._clock.now()
        ahead = 0
        while self._heap and (self._heap[0][0] <= now + HEAD_START or self._heap[0][2].abort is not None):
            if self._heap[0][0] > now:
                if ahead == AHEAD_A_TURN:
                    break
                ahead += 1
            item = heapq.heappop(self._heap)
            if item[2].abort is None:
                heapq.heappush(self._due.setdefault(item[2].grant.org_id, []), item)
        while not self._slots.all_taken and (held := self._next_due()) is not None:
            self._begin(held, now)
        self._set_alarm(now)

    def _next_due(self) -> Held | None:
        """Take out the oldest due attempt of the org that has the fewest slots, if any org may have one more."""
        while self._due:
            org_id = self._next_org()
            if org_id is None:
                return None
            held = heapq.heappop(self._due[org_id])[2]
            if not self._due[org_id]:
                del self._due[org_id]
            if held.abort is None:
                return held
        return None

    def _next_org(self) -> str | None:
        free = [org_id for org_id in self._due if not self._slots.is_used_up(org_id)]
        if len(free) <= 1:
            return free[0] if free else None
        return min(free, key=lambda org: (self._slots.taken_by(org), self._due[org][0][:2]))

    def _begin(self, held: Held, now: datetime) -> None:
        org_id, began = held.grant.org_id, max(now, held.start_time)

        def slot_freed() -> None:
            ended = self._clock.now()
            # Else nobody waits for a slot, and the alarm is set for who waits for an instant.
            awaited = self._slots.all_taken or self._due
            self._slots.free(org_id, max((ended - began).total_seconds(), 0.0), ended)
            if awaited:
                self._advance()

        self._slots.take(org_id)
        self._start(held, slot_freed)

    def _set_alarm(self, now: datetime) -> None:
        """Set the alarm for the first start; not while every slot is taken, since a freed slot looks anyway."""
        if not self._heap or self._slots.all_taken:
            self._alarm.cancel()
        else:
            self._alarm.set(max(self._heap[0][0] - HEAD_START, now), now)
