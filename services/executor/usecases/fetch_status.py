"""How due work is being fetched, and when that last succeeded: what readiness and the poll path go by."""

from __future__ import annotations

import asyncio

from libs.common.clock import Clock
from libs.common.logs import get_logger
from services.executor.domain.delivery_mode import DeliveryMode, Mode, ModeChange
from services.executor.usecases.ports import ExecutorObserver

BEHIND_SECONDS = 3.0
"""How long a late delivery tells of more late ones behind it; longer than an executor is full at a time."""

log = get_logger(__name__)


class FetchStatus:
    """Follows the readers and pollers; logs every change of mode once, and wakes who waits for one."""

    def __init__(self, delivery: DeliveryMode, clock: Clock, observer: ExecutorObserver, ready_within: float) -> None:
        self._delivery = delivery
        self._clock = clock
        self._observer = observer
        self._ready_within = ready_within
        self._last_fetch: float | None = None
        self._last_late: float | None = None
        self.changed = asyncio.Event()
        """Set at every change of mode; who waits for it clears it."""

    @property
    def mode(self) -> Mode:
        """Return the mode after letting time pass, since a read that hangs announces nothing."""
        self._note(self._delivery.check(self._clock.monotonic()))
        return self._delivery.mode

    def read_started(self, shard: int) -> None:
        """Note that a shard is being read."""
        self._note(self._delivery.read_started(shard, self._clock.monotonic()))

    def read_succeeded(self, shard: int) -> None:
        """Note that a shard answered."""
        self.fetched()
        self._note(self._delivery.read_succeeded(shard, self._clock.monotonic()))

    def read_failed(self, shard: int) -> None:
        """Note that a shard failed."""
        self._note(self._delivery.read_failed(shard, self._clock.monotonic()))

    def reading_stopped(self, shard: int) -> None:
        """Note that a shard is not read for reasons of our own."""
        self._delivery.reading_stopped(shard)

    def delivered_late(self) -> None:
        """Note that a shard delivered what the poll path may take for lost by now."""
        self._last_late = self._clock.monotonic()

    @property
    def behind(self) -> bool:
        """Whether the streams deliver, but late: what is overdue is most likely still on its way."""
        return self._last_late is not None and self._clock.monotonic() - self._last_late < BEHIND_SECONDS

    def fetched(self) -> None:
        """Note a fetch that succeeded, by whatever path."""
        self._last_fetch = self._clock.monotonic()

    def not_ready(self) -> str | None:
        """Return why no work can be fetched, or None while a fetch succeeded lately; fits a readiness check."""
        mode = self.mode
        if self._last_fetch is None:
            return f"nothing fetched yet, mode {mode.value}"
        age = self._clock.monotonic() - self._last_fetch
        return None if age < self._ready_within else f"last fetch {age:.0f} s ago, mode {mode.value}"

    def not_streams(self) -> str | None:
        """Return the mode if it is not STREAMS, else None; fits a health check."""
        mode = self.mode
        return None if mode is Mode.STREAMS else mode.value

    def _note(self, change: ModeChange | None) -> None:
        if change is None:
            return
        level = log.warning if change.after is Mode.POLLING else log.info
        level("delivery.mode_changed", before=change.before.value, after=change.after.value)
        self._observer.mode_changed(change.after)
        self.changed.set()
