"""Wakes the acquire calls that wait at this replica when something near is created."""

from __future__ import annotations

import asyncio
from datetime import datetime


class InProcessNudge:
    """Implements `DueNudge` inside one event loop; other replicas notice within their poll interval."""

    def __init__(self) -> None:
        self._waiters: set[tuple[datetime, asyncio.Event]] = set()

    def notify(self, due_time: datetime) -> None:
        """Say that something is due at an instant; wakes those who look that far ahead."""
        for until, event in self._waiters:
            if due_time <= until:
                event.set()

    async def wait(self, until: datetime, timeout: float) -> None:
        """Wait until something due by `until` is notified, at most `timeout` seconds.

        The horizon moves on while the call waits, by `timeout` at most.
        """
        waiter = (until, asyncio.Event())
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter[1].wait()
        except TimeoutError:
            return
        finally:
            self._waiters.discard(waiter)
