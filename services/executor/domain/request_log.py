"""Keeps a limit of N starts in any window of W, and tells who must wait when their turn comes: at once, and once.

There are two sets. `starts` holds the slots of what was let through; it alone decides. `line` holds the slots of what
was put back, so that it comes back at its own time and is not overtaken; it is a promise, and no more than that.

Why no window can hold more than N starts. A slot s joins `starts` only where every window of W that contains s holds
fewer than N others (`_fits`; a window's content is settled by its last slot, so it is enough to look at those that end
at s or at a later slot). Take any window and the slot in it that joined last: it found fewer than N others there. Slots
that leave (an attempt that never started gives its slot back) only make room. The limit must hold where requests
arrive, not where they are planned: a request arrives within `slack` of its slot, so the W that slots keep is the real
window plus the slack, and what cannot start in time asks again.

Why nothing spins. Once the window is full, each newcomer books the slot behind the line's last one, W / N later, so it
is put back once, until a time at which it fits. A booking counts against newcomers as if it had started. It is passed
over only when its owner comes too late, or when another limit of the same attempt moved it; then it books again.

A token bucket would not do: one that allows the burst of N lets 2N - 1 through within a window.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass

from services.executor.domain.gate_values import SECOND, GateRules

HOLD = 1 * SECOND
"""A slot this near is waited for here instead of in the database."""
EXACT_LATER = 64
"""With more later slots than these in the window they are counted all at once, which errs on the safe side."""
START_AT_ANY_TIME = 2**53 - 1
"""Later than all instants; the largest number that a script counts exactly."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A slot, and whether it may be started; if not, it is to be booked."""

    slot: int
    admitted: bool


class SlotSet:
    """Members with their slots, ordered by slot; a sorted set as Redis has it."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, member: str) -> int | None:
        """Return a member's slot."""
        return self._slots.get(member)

    def put(self, member: str, slot: int) -> None:
        """Add or move a member."""
        self.remove(member)
        self._slots[member] = slot
        insort(self._order, slot)

    def remove(self, member: str) -> None:
        """Take a member out; harmless when it is not there."""
        slot = self._slots.pop(member, None)
        if slot is not None:
            del self._order[bisect_left(self._order, slot)]

    def forget(self, until: int) -> None:
        """Drop what has a slot up to and with `until`."""
        if self._order and self._order[0] <= until:
            self._slots = {member: slot for member, slot in self._slots.items() if slot > until}
            del self._order[: bisect_right(self._order, until)]

    def count(self, after: int, until: int) -> int:
        """Return how many have a slot later than `after`, up to and with `until`."""
        return bisect_right(self._order, until) - bisect_right(self._order, after)

    def between(self, after: int, before: int) -> list[int]:
        """Return the slots later than `after` and earlier than `before`, in order."""
        return self._order[bisect_right(self._order, after) : bisect_left(self._order, before)]

    def from_last(self, rank: int) -> int:
        """Return the slot that is the `rank`-th from the end, 1 for the last."""
        return self._order[-rank]


class RequestLog:
    """The starts and the line of one limit."""

    def __init__(self, rules: GateRules) -> None:
        self._window = rules.counted_window
        self._tolerance = rules.tolerance
        self.starts = SlotSet()
        self.line = SlotSet()

    def plan(self, limit: int, execution_id: str, at: int, now: int) -> Plan:
        """Return when an execution that could start at `at` may start; changes nothing but forgets what is past."""
        if not limit:
            return Plan(at, admitted=True)
        self.forget(now)
        own = self.line.get(execution_id)
        if own is None:
            if self._is_quiet(at, limit):
                return Plan(at, admitted=True)
        elif own > at + HOLD:
            return Plan(own, admitted=False)
        elif self.fits(own, limit):
            return Plan(own, admitted=True)
        slot = self.end_of_line(execution_id, at, limit)
        return Plan(slot, slot <= at + HOLD and self.fits(slot, limit))

    def fits(self, slot: int, limit: int) -> bool:
        """Whether every window that contains the slot has room for one more start."""
        later = self.starts.between(slot, slot + self._window)
        if len(later) > EXACT_LATER:
            return self.starts.count(slot - self._window, slot) + len(later) < limit
        return all(self.starts.count(end - self._window, end) < limit for end in (slot, *later))

    def end_of_line(self, execution_id: str, at: int, limit: int) -> int:
        """Return the first slot from `at` on that is behind all bookings and leaves a window for N of what is before.

        A booking of the execution itself is dropped first.
        """
        self.line.remove(execution_id)
        slot = at
        waiting = len(self.line)
        if waiting:
            slot = max(slot, self.line.from_last(1) + math.ceil(self._window / limit))
        if waiting >= limit:
            return max(slot, self.line.from_last(limit) + self._window)
        if len(self.starts) >= limit - waiting:
            return max(slot, self.starts.from_last(limit - waiting) + self._window)
        return slot

    def start(self, limit: int, execution_id: str, member: str, slot: int) -> int:
        """Let an attempt through; return until when it must have started."""
        if not limit:
            return START_AT_ANY_TIME
        self.line.remove(execution_id)
        self.starts.put(member, slot)
        return slot + self._tolerance

    def forget(self, now: int) -> None:
        """Drop starts that no slot yet to come can share a window with, and bookings whose time has passed."""
        self.starts.forget(now - 2 * self._window)
        self.line.forget(now - self._tolerance - 1)

    def _is_quiet(self, at: int, limit: int) -> bool:
        """Whether a newcomer finds room at `at` without taking it from anybody in line."""
        around = self.starts.count(at - self._window, at + self._window - 1)
        return around + self.line.count(-1, at + self._window - 1) < limit
