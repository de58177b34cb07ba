"""Keeps this dispatcher's share of the partitions by a lease at the scheduler, renewed at a third of its time.

A lease that could not be renewed ends here no later than there, counted from before the request was sent, so that a
dispatcher that lost touch stops asking for partitions that may be another's. That only saves double work:
compare-and-set at the scheduler decides each fire once, whoever asks.

Each renewal also shows the scheduler's clock, which due times are told by.
"""

from __future__ import annotations

from datetime import timedelta

from libs.common.clock import Clock
from libs.common.clock_offset import OffsetEstimator
from libs.common.errors import PunctualError
from libs.common.logs import get_logger
from services.dispatcher.usecases.ports import Scheduler

log = get_logger(__name__)


class Partitions:
    """The partitions that this dispatcher looks after right now."""

    def __init__(self, scheduler: Scheduler, clock: Clock, *, lease_seconds: float) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._partitions: tuple[int, ...] = ()
        self._expires: float | None = None
        self._next_renewal = clock.monotonic()
        self._offset = OffsetEstimator()

    async def renew(self) -> None:
        """Renew the lease, or get a first one; what is held changes with it."""
        sent, sent_monotonic = self._clock.now(), self._clock.monotonic()
        lease = await self._scheduler.lease_partitions(self._lease_seconds)
        answered = lease.expire_time - timedelta(seconds=self._lease_seconds)
        self._offset.add(sent, answered, self._clock.now())
        if lease.partitions != self.held():
            log.info("partitions.changed", count=len(lease.partitions), dispatchers=lease.dispatcher_count)
        self._partitions = lease.partitions
        self._expires = sent_monotonic + self._lease_seconds
        # As the loop around it paces it: from begin to begin, and half of the time free.
        self._next_renewal = max(
            sent_monotonic + self.renewal_seconds, self._clock.monotonic() + self.renewal_seconds / 2
        )

    @property
    def renewal_seconds(self) -> float:
        """The time between two renewals."""
        return self._lease_seconds / 3

    def seconds_to_renewal(self) -> float:
        """Return when the next renewal is due, which may change what is held; 0 when it is under way or late."""
        return max(self._next_renewal - self._clock.monotonic(), 0.0)

    def held(self) -> tuple[int, ...]:
        """Return the partitions under a lease that still holds."""
        return self._partitions if self._lease_holds() else ()

    def clock_offset(self) -> timedelta:
        """Return what to add to our clock to get the scheduler's."""
        return self._offset.offset()

    def measured_offset(self) -> timedelta:
        """Return the same as it was measured, noise included, for people to see."""
        return self._offset.raw_offset()

    async def release(self) -> None:
        """Give everything back. If that fails, the others wait for the lease to end."""
        self._partitions, self._expires = (), None
        try:
            await self._scheduler.release_partitions()
        except PunctualError as error:
            log.warning("partitions.release_failed", reason=error.reason, error=str(error))

    def check(self) -> str | None:
        """Return why this dispatcher does not know its share, or None. A share of none is one, too."""
        if self._expires is None:
            return "no partition lease yet"
        return None if self._lease_holds() else "the partition lease has run out"

    def _lease_holds(self) -> bool:
        return self._expires is not None and self._clock.monotonic() < self._expires
