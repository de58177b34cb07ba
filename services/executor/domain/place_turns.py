"""Estimates how long an attempt waits for one of a host's places, by how long the host's calls took lately.

Waiting here costs no database round trip and starts the moment a place is free, but it keeps the attempt's place in
this executor's bounded room from others. So what gets its turn soon waits here, and the rest goes back with a turn.
"""

from __future__ import annotations

from collections import OrderedDict

from services.executor.domain.gate_values import TargetKey

MAX_HOSTS = 10_000
PATIENCE_SECONDS = 1.0
"""What is expected to wait longer goes back."""
LONGEST_WAIT_SECONDS = 2.0
"""What has waited longer goes back, whatever was expected."""
_FIRST_GUESS_SECONDS = 0.1
_NEWEST_WEIGHT = 0.1
_LEAST_TURN_SECONDS = 0.001


class PlaceTurns:
    """The average duration of calls by host; the least recently called hosts are forgotten."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[TargetKey, float] = OrderedDict()

    def took(self, target: TargetKey, seconds: float) -> None:
        """Learn how long a place was taken."""
        average = self._seconds.get(target, seconds)
        self._seconds[target] = average + (seconds - average) * _NEWEST_WEIGHT
        self._seconds.move_to_end(target)
        if len(self._seconds) > MAX_HOSTS:
            self._seconds.popitem(last=False)

    def turn_seconds(self, target: TargetKey, places: int) -> float:
        """Return how often one of so many places becomes free."""
        return max(self._seconds.get(target, _FIRST_GUESS_SECONDS) / max(places, 1), _LEAST_TURN_SECONDS)

    def waits_here(self, target: TargetKey, places: int, ahead: int, waited: float) -> bool:
        """Whether an attempt with that many others ahead of it, that has waited so long, goes on waiting here."""
        return waited < LONGEST_WAIT_SECONDS and ahead * self.turn_seconds(target, places) < PATIENCE_SECONDS
