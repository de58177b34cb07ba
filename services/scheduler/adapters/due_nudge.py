"""Wakes the acquire calls that wait at this replica when something near is created."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime

KEPT_NOTICES = 1000
"""Notifications that are remembered for waits that begin after them; a wait that missed more does not wait."""


class InProcessNudge:
    """Implements `DueNudge` inside one event loop; other replicas notice within their poll interval."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Event, datetime] = {}
        self._count = 0
        self._notices: deque[datetime] = deque(maxlen=KEPT_NOTICES)

    def mark(self) -> int:
        """Return a mark of this moment."""
        return self._count

    def notify(self, due_time: datetime) -> None:
        """Say that something is due at an instant; wakes those who look that far ahead."""
        self._count += 1
        self._notices.append(due_time)
        for event, until in self._waiters.items():
            if due_time <= until:
                event.set()

    async def wait(self, until: datetime, timeout: float, *, since: int) -> bool:
        """Wait until something due by `until` is, or since the mark was, notified; False: not in `timeout` seconds.

        The horizon moves on while the call waits, by `timeout` at most.
        """
        if self._noticed(until, since):
            return True
        waiter = asyncio.Event()
        self._waiters[waiter] = until
        try:
            async with asyncio.timeout(timeout):
                return await waiter.wait()
        except TimeoutError:
            return False
        finally:
            del self._waiters[waiter]

    def _noticed(self, until: datetime, since: int) -> bool:
        missed = self._count - since
        if missed > len(self._notices):
            return True
        return any(self._notices[-index] <= until for index in range(1, missed + 1))
