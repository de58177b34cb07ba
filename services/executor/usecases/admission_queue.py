"""What waits to be told to gates and asked of them: attempts that want to start, and the ends of those that did.

Attempts come here in their lead time, and their gate is asked shortly before they are due: early enough for a round
trip, and not earlier, for each holds its place from then on. Both ways are batched: what gathers during one exchange
goes with the next. An attempt that found all places taken is held back here, and asked for
again the moment that one of this executor's own places becomes free, or after a while, for others give back as well.

Whoever was let through is noted exactly once, whatever came of it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from libs.common.clock import Clock
from libs.common.lifecycle import first_of
from services.executor.domain.attempt import Grant
from services.executor.domain.gate_values import Note, TargetKey, to_micros
from services.executor.domain.place_turns import PlaceTurns
from services.executor.domain.report import CallResult
from services.executor.domain.target_feedback import feedback_of
from services.executor.domain.target_url import BadUrlError, parse_target_url
from services.executor.usecases.held_attempts import Held
from services.executor.usecases.ports import SchedulerClock

MAX_ASKS = 500
"""Attempts in one exchange."""
RECHECK_SECONDS = 0.1
"""How often what is held back asks again, in case other executors gave places back."""
ASK_AHEAD = timedelta(milliseconds=60)
"""How long before it is due an attempt asks: with 64 places at a host, a tenth of a second more would mean 300 calls a
second less."""
ASK_TOGETHER = timedelta(milliseconds=40)
"""Attempts that are due so close to each other share an exchange."""
NOTES_WINDOW_SECONDS = 0.06
"""How long notes wait for company while nobody here waits for what they give back; as at a steady rate attempts ask at
shorter intervals, notes go with these and make no exchanges of their own."""
LONGEST_NAP_SECONDS = 1.0
"""Before the clock is asked again: it may have been set, or its correction be another one."""
_IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Gathered:
    """What one exchange carries."""

    notes: Sequence[tuple[TargetKey, Note]]
    asks: Sequence[Held]


class AdmissionQueue:
    """The attempts before their admission, and the notes of those after it."""

    def __init__(self, clock: Clock, scheduler_clock: SchedulerClock) -> None:
        self._clock = clock
        self._scheduler_clock = scheduler_clock
        self._order = itertools.count()
        self._early: list[tuple[datetime, int, Held]] = []
        """A heap of what is not to ask yet."""
        self._asks: deque[Held] = deque()
        self._notes: list[tuple[TargetKey, Note]] = []
        self._held_back: defaultdict[TargetKey, deque[Held]] = defaultdict(deque)
        self._asking: Counter[TargetKey] = Counter()
        """How many of what was gathered last ask at each gate, one behind the other."""
        self._recheck = clock.monotonic()
        self._some = asyncio.Event()
        self._asked = asyncio.Event()
        self._all_told = asyncio.Event()
        """Set while no note waits or is under way."""
        self._all_told.set()
        self._turns = PlaceTurns()

    def ask(self, held: Held) -> None:
        """Let an attempt wait to be let through."""
        held.target = target_of(held.grant)
        due = held.grant.due_time
        if due - self._scheduler_clock.now() > ASK_AHEAD:
            heapq.heappush(self._early, (due, next(self._order), held))
            if self._early[0][2] is held:
                # Whoever waits for the first of them waits too long now.
                self._some.set()
            return
        self._asks.append(held)
        self._some.set()
        self._asked.set()

    def ask_again(self, held: Held) -> None:
        """Give an attempt's slot back, which it could not use in time, and let it wait for another one."""
        self.note(held, None)
        self.ask(held)

    def note(self, held: Held, call: CallResult | None) -> None:
        """Take in the end of an attempt; one that was not let through, or was noted before, changes nothing."""
        if held.admitted is None or held.target is None:
            return
        now = self._scheduler_clock.now()
        started = held.progress.start_time
        execution_id, fencing_token = held.lease
        note = Note(
            execution_id,
            fencing_token,
            held.grant.job_id,
            to_micros(now),
            started is not None,
            feedback_of(call, now),
        )
        held.give_back()
        if started is not None:
            self._turns.took(held.target, (now - started).total_seconds())
        self._notes.append((held.target, note))
        self._all_told.clear()
        if self._held_back and (waiting := self._held_back.get(held.target)):
            self._asks.append(waiting.popleft())
            self._asked.set()
            self._some.set()
        elif self._seconds_to_early() > NOTES_WINDOW_SECONDS:
            # Else who asks soon takes it along.
            self._some.set()

    def hold_back(self, held: Held, target: TargetKey) -> None:
        """Let an attempt wait here that found all places taken."""
        if held.waits_since is None:
            held.waits_since = self._clock.monotonic()
        self._held_back[target].append(held)

    def turn_micros(self, held: Held, target: TargetKey) -> int:
        """Return what one place's turn takes if the attempt shall stand in line by it; else 0. Call it ask by ask."""
        places = held.grant.limits.host_concurrent_requests
        if not places:
            return 0
        waited = 0.0 if held.waits_since is None else self._clock.monotonic() - held.waits_since
        # What is held back asks again together, and stands in no line here meanwhile.
        ahead = len(self._held_back.get(target, ())) + self._asking[target]
        self._asking[target] += 1
        if self._turns.waits_here(target, places, ahead, waited):
            return 0
        return round(self._turns.turn_seconds(target, places) * 1_000_000)

    async def gather(self) -> Gathered:
        """Wait until there is something to tell or to ask, and take it."""
        self._bring_in()
        if not self._asks and not self._notes:
            self._some.clear()
            pause = RECHECK_SECONDS if self._held_back else _IDLE_SECONDS
            await first_of(self._some.wait(), self._clock.sleep(min(pause, self._seconds_to_early())))
            self._bring_in()
        if self._notes and not self._asks and not self._held_back:
            self._asked.clear()
            pause = min(NOTES_WINDOW_SECONDS, self._seconds_to_early())
            await first_of(self._asked.wait(), self._clock.sleep(pause))
            self._bring_in()
        self._asking.clear()
        notes, self._notes = self._notes, []
        asks: list[Held] = []
        while self._asks and len(asks) < MAX_ASKS:
            held = self._asks.popleft()
            # What was aborted meanwhile has been concluded already.
            if held.abort is None:
                asks.append(held)
        return Gathered(notes, asks)

    def _bring_in(self) -> None:
        """Ask for what is early no more, and now and then for what is held back."""
        if self._clock.monotonic() >= self._recheck:
            self._recheck = self._clock.monotonic() + RECHECK_SECONDS
            for waiting in self._held_back.values():
                self._asks.extend(waiting)
            self._held_back.clear()
        if self._early and self._seconds_to_early() <= 0:
            until = self._scheduler_clock.now() + ASK_AHEAD + ASK_TOGETHER
            while self._early and self._early[0][0] <= until:
                self._asks.append(heapq.heappop(self._early)[2])

    def _seconds_to_early(self) -> float:
        """Return how long it is until the first of the early ones is to ask, endless without one; a nap at most."""
        if not self._early:
            return math.inf
        left = (self._early[0][0] - ASK_AHEAD - self._scheduler_clock.now()).total_seconds()
        return min(left, LONGEST_NAP_SECONDS)

    def told(self) -> None:
        """Hear that what was gathered has been exchanged."""
        if not self._notes:
            self._all_told.set()

    async def wait_until_told(self) -> None:
        """Return when gates know of every end that was noted."""
        await self._all_told.wait()

    def put_back(self, gathered: Gathered) -> None:
        """Take back what could not be exchanged."""
        self._notes[:0] = gathered.notes
        self._asks.extendleft(reversed(gathered.asks))


def target_of(grant: Grant) -> TargetKey | None:
    """Return the gate that an attempt passes; None when its address is none, which the caller reports."""
    host = _host_of(grant.request.url)
    return TargetKey(grant.org_id, host, grant.limits.host_generation) if host else None


# Jobs fire again and again at few addresses.
@lru_cache(maxsize=1024)
def _host_of(url: str) -> str:
    try:
        return parse_target_url(url).host_port
    except BadUrlError:
        return ""
