"""A nudge that keeps a record, and whose waits end by the clock it is given."""

from __future__ import annotations

import asyncio
from datetime import datetime

from libs.common.clock import Clock


class FakeDueNudge:
    """Implements `DueNudge`; `notified` holds all that was announced, in order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiters: set[tuple[datetime, asyncio.Event]] = set()
        self.notified: list[datetime] = []

    def mark(self) -> int:
        """Return a mark of this moment."""
        return len(self.notified)

    def notify(self, due_time: datetime) -> None:
        """Say that something is due at an instant."""
        self.notified.append(due_time)
        for until, event in self._waiters:
            if due_time <= until:
                event.set()

    async def wait(self, until: datetime, timeout: float, *, since: int) -> bool:
        """Wait until something due by `until` is, or since the mark was, notified; False: not in `timeout` seconds."""
        if any(due_time <= until for due_time in self.notified[since:]):
            return True
        waiter = (until, asyncio.Event())
        self._waiters.add(waiter)
        ends = [asyncio.ensure_future(self._clock.sleep(timeout)), asyncio.ensure_future(waiter[1].wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiters.discard(waiter)
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        return waiter[1].is_set()
