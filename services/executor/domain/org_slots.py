"""Shares an executor's request slots among the orgs that use them (promise P7).

No org holds more than its share of the slots: one whose targets are all slow would otherwise hold every slot for as
long as its calls take, and nothing could be taken back from it. Whoever has the fewest slots is served next. What finds
its org's share used up is told when its turn may come, by how long the org's calls took lately.
"""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime, timedelta

LEAST_TURN = timedelta(seconds=1)
MOST_TURN = timedelta(minutes=5)
"""How soon and how late a turn can be; the estimate behind it may be far off."""
_FIRST_GUESS_SECONDS = 1.0
_NEWEST_WEIGHT = 0.1


class OrgSlots:
    """The slots that are taken, by org. What is known of an org goes when it uses none and its last turn is over."""

    def __init__(self, slots: int, share: float) -> None:
        self._slots = slots
        self._most = math.ceil(slots * share)
        self._taken: Counter[str] = Counter()
        self._all = 0
        """The sum of these."""
        self._seconds: dict[str, float] = {}
        self._turn: dict[str, datetime] = {}

    @property
    def all_taken(self) -> bool:
        """Whether no slot is free."""
        return self._all >= self._slots

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        return self._all

    def taken_by(self, org_id: str) -> int:
        """Return how many slots an org has."""
        return self._taken[org_id]

    def is_used_up(self, org_id: str) -> bool:
        """Whether an org has its whole share."""
        return self._taken[org_id] >= self._most

    def take(self, org_id: str) -> None:
        """Note that an org got a slot."""
        self._taken[org_id] += 1
        self._all += 1

    def free(self, org_id: str, seconds: float, now: datetime) -> None:
        """Note that an org gave a slot back after so long."""
        self._taken[org_id] -= 1
        self._all -= 1
        average = self._seconds.get(org_id, seconds)
        self._seconds[org_id] = average + (seconds - average) * _NEWEST_WEIGHT
        if not self._taken[org_id]:
            del self._taken[org_id]
            if self._turn.get(org_id, now) <= now:
                self._turn.pop(org_id, None)
                del self._seconds[org_id]

    def turn(self, org_id: str, now: datetime) -> datetime:
        """Return when another attempt of an org whose share is used up may come back; each gets a turn of its own."""
        each = timedelta(seconds=self._seconds.get(org_id, _FIRST_GUESS_SECONDS) / self._most)
        at = max(self._turn.get(org_id, now), now) + each
        self._turn[org_id] = min(at, now + MOST_TURN)
        return max(self._turn[org_id], now + LEAST_TURN)
