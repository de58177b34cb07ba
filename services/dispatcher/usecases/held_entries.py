"""The entries between acquire and deliver, and the events by which the two loops wake each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime

from services.dispatcher.domain.due_heap import DueEntry, DueHeap


class HeldEntries:
    """A heap of due entries shared by one event loop's tasks."""

    def __init__(self) -> None:
        self._heap = DueHeap()
        self.changed = asyncio.Event()
        """Set when entries came; the one who waits on it clears it."""

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, entries: Iterable[DueEntry]) -> None:
        """Hold the entries, and wake the deliver loop: one may be the earliest, and many are delivered earlier."""
        self._heap.add(entries)
        self.changed.set()

    def next_due(self) -> datetime | None:
        """Return the earliest due time held, or None."""
        return self._heap.next_due()

    def take_due(self, until: datetime, limit: int) -> list[DueEntry]:
        """Remove and return up to `limit` entries due at or before `until`, orgs taking turns."""
        return self._heap.take_due(until, limit)
