"""What wakes acquire calls."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class DueNudge(Protocol):
    """Wakes the acquire calls that wait at this replica."""

    def mark(self) -> int:
        """Return a mark of this moment; a wait since it misses no notification after it."""
        ...

    def notify(self, due_time: datetime) -> None:
        """Say that something is due at an instant."""
        ...

    async def wait(self, until: datetime, timeout: float, *, since: int) -> bool:
        """Wait until something due by `until` is, or since the mark was, notified; False: not in `timeout` seconds."""
        ...
