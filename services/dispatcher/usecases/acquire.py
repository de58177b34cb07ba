"""Asks the scheduler for what comes due, as long as there is room for it.

A call waits at the scheduler when nothing is due, so a job that is created for "now" arrives at once. A call in
progress is never cut: its executions are materialized by then, and only the poll path would find them, overdue by its
grace. So it ends by itself when the share of the partitions may have changed, with the renewal of their lease: what a
dead dispatcher held is asked for at once.
"""

from __future__ import annotations

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from services.dispatcher.domain.backpressure import Bounds
from services.dispatcher.usecases.backlog import Backlog
from services.dispatcher.usecases.held_entries import HeldEntries
from services.dispatcher.usecases.partitions import Partitions
from services.dispatcher.usecases.ports import Scheduler

_IDLE_SECONDS = 0.05
_RENEWAL_TAKES_SECONDS = 0.1
"""Until a renewal that is due has been answered; a call that ended before would have to be made again after it."""
_READY_AGE_SECONDS = 10.0


class Acquire:
    """One pass asks once, or waits a moment when it must not ask."""

    def __init__(
        self,
        scheduler: Scheduler,
        partitions: Partitions,
        held: HeldEntries,
        backlog: Backlog,
        clock: Clock,
        *,
        bounds: Bounds,
        horizon_seconds: float,
        wait_seconds: float,
    ) -> None:
        self._scheduler = scheduler
        self._partitions = partitions
        self._held = held
        self._backlog = backlog
        self._clock = clock
        self._bounds = bounds
        self._horizon_seconds = horizon_seconds
        self._wait_seconds = wait_seconds
        self._progress: float | None = None

    async def run_once(self) -> int:
        """Acquire once; return how many executions came."""
        partitions = self._partitions.held()
        limit = self._bounds.acquire_limit(len(self._held), self._backlog.entries)
        if not partitions or not limit:
            self._progress = self._clock.monotonic()
            await self._clock.sleep(_IDLE_SECONDS)
            return 0
        began = self._clock.monotonic()
        wait_seconds = min(self._wait_seconds, self._partitions.seconds_to_renewal() + _RENEWAL_TAKES_SECONDS)
        acquired = await self._scheduler.acquire_due(
            partitions, horizon_seconds=self._horizon_seconds, limit=limit, wait_seconds=wait_seconds
        )
        self._progress = self._clock.monotonic()
        if acquired.entries:
            # If we die here, the executions are materialized and on no stream: the poll path finds them overdue.
            crash_point("dispatcher.acquired")
            self._held.add(acquired.entries)
        elif not acquired.more and self._progress - began < wait_seconds / 2:
            # A scheduler that does not wait (it drains) must not be asked in a hot loop.
            await self._clock.sleep(_IDLE_SECONDS)
        return len(acquired.entries)

    @property
    def held_count(self) -> int:
        """How many acquired entries are not delivered yet."""
        return len(self._held)

    def check(self) -> str | None:
        """Return why the dispatcher counts as cut off from the scheduler, or None. Waiting for room is progress."""
        if self._progress is None:
            return "nothing acquired yet"
        age = self._clock.monotonic() - self._progress
        return None if age < _READY_AGE_SECONDS else f"no successful acquire for {age:.0f} s"
