"""How far another machine's clock is from ours, judged by what its answers say.

The error of one sample is at most half its round trip, so of a sliding window the sample with the shortest one counts.
Within that error the correction is the least that can be true, and one smaller than what the measurement can tell is
none at all: otherwise noise would move a fire before its due time (promise P4), while this way it is late by a round
trip at most.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

_NONE = timedelta(0)


@dataclass(frozen=True, slots=True)
class _Sample:
    """One exchange: the other clock minus ours, and the round trip it was seen through."""

    offset: timedelta
    round_trip: timedelta


class OffsetEstimator:
    """Estimates the other clock minus ours. Not safe across threads; one per peer."""

    def __init__(self, deadband: timedelta = timedelta(milliseconds=5), window: int = 16) -> None:
        self._deadband = deadband
        self._samples: deque[_Sample] = deque(maxlen=window)
        self._offset = _NONE
        """Worked out with each sample: it is asked for far more often."""

    def add(self, request_sent: datetime, server_time: datetime, response_received: datetime) -> None:
        """Take one exchange: our clock when we asked, theirs when they answered, ours when the answer came.

        An exchange that seems to have ended before it began was cut by a step of our own clock and is dropped, with all
        before it, since they measured the old clock.
        """
        round_trip = response_received - request_sent
        if round_trip < _NONE:
            self._samples.clear()
            self._offset = _NONE
            return
        sample = _Sample(server_time - (request_sent + round_trip / 2), round_trip)
        best = self._best()
        if best is not None and not self._agree(sample, best):
            # Both cannot be true of one pair of clocks: one of them was set in between, and the old samples lie now.
            self._samples.clear()
        self._samples.append(sample)
        self._offset = self._judged()

    def raw_offset(self) -> timedelta:
        """Return the best sample's offset as it was measured, for the metric; zero before the first sample."""
        best = self._best()
        return best.offset if best else _NONE

    def offset(self) -> timedelta:
        """Return what to add to our clock to get theirs or a little less; zero unless it is surely more than noise."""
        return self._offset

    def _judged(self) -> timedelta:
        best = self._best()
        if best is None or abs(best.offset) <= max(self._deadband, best.round_trip / 2):
            return _NONE
        return best.offset - best.round_trip / 2

    def _agree(self, one: _Sample, other: _Sample) -> bool:
        """Whether both can be true: each is off by half its round trip at most, and the clocks drift a little."""
        return abs(one.offset - other.offset) <= (one.round_trip + other.round_trip) / 2 + self._deadband

    def _best(self) -> _Sample | None:
        return min(self._samples, key=lambda sample: sample.round_trip, default=None)
