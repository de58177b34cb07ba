"""The scheduler's clock as estimated here: ours, plus what its answers say we are off by."""

from __future__ import annotations

from datetime import datetime

from libs.common.clock import Clock
from libs.common.clock_offset import OffsetEstimator


class EstimatedClock:
    """Implements `SchedulerClock`; our own clock within the estimator's dead band, so that noise moves no fire."""

    def __init__(self, clock: Clock, estimator: OffsetEstimator) -> None:
        self._clock = clock
        self._estimator = estimator

    def now(self) -> datetime:
        """Return the corrected instant."""
        return self._clock.now() + self._estimator.offset()
