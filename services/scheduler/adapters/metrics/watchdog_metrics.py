"""Shows what the watchdog found; every replica shows the same, so the largest counts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from libs.common.metrics import Metrics
from services.scheduler.usecases.watchdog import MAX_COUNTED, Overdue, Place


class WatchdogMetrics:
    """Implements `WatchdogObserver`."""

    def __init__(self, metrics: Metrics) -> None:
        count = metrics.gauge(
            "overdue",
            f"What lies beyond its time, by who should have acted, counted up to {MAX_COUNTED:,}: JOB a fire that no"
            " dispatcher asked for, WAITING a wait that is over, DISPATCHED a delivery that nobody began within 2 s,"
            " LEASED an attempt whose lease ran out, SETTLING an end that its job was not told of.",
            ("place",),
            across="max",
        )
        age = metrics.gauge(
            "oldest_overdue_seconds", "For how long the oldest of these has lain; 0: none.", ("place",), across="max"
        )
        self._counts = {place: count.labels(place.value) for place in Place}
        self._ages = {place: age.labels(place.value) for place in Place}
        self._unowned = metrics.gauge(
            "partitions_unowned", "Partitions that no live dispatcher holds, of 256.", across="max"
        )
        self._repaired = metrics.counter(
            "watchdog_repairs", "Fires that the watchdog materialized because no dispatcher did."
        )

    def found(self, overdue: Mapping[Place, Overdue], now: datetime) -> None:
        """Show what is overdue."""
        for place in Place:
            found = overdue.get(place, Overdue())
            self._counts[place].set(found.count)
            self._ages[place].set(found.age_seconds(now))

    def partitions(self, unowned: int) -> None:
        """Show how many partitions nobody holds."""
        self._unowned.set(unowned)

    def repaired(self, fires: int) -> None:
        """Count fires that the watchdog materialized."""
        self._repaired.inc(fires)
