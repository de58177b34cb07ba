"""Entries held until shortly before their due time: earliest first, and orgs take turns when many are due together.

One org's 100,000 midnight jobs must not stand in front of another's single one (promise P7). So each org has a heap of
its own, and a batch takes one entry of each org that has something due, the org that was served longest ago first.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class DueEntry:
    """An execution to put on the stream: ids and times only, never a payload."""

    execution_id: str
    job_id: str
    org_id: str
    due_time: datetime
    partition: int
    trace_parent: str = ""


class DueHeap:
    """Holds entries by due time and org; one execution is held at most once."""

    def __init__(self) -> None:
        self._order = itertools.count()
        self._turn = itertools.count()
        self._ids: set[str] = set()
        self._by_org: dict[str, list[tuple[datetime, int, DueEntry]]] = {}
        # When each org that holds something was served last; one that was not yet comes first.
        self._served: dict[str, int] = {}
        # (due time, org) of every org's earliest entry, and possibly of entries that were its earliest once.
        self._heads: list[tuple[datetime, str]] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, entries: Iterable[DueEntry]) -> None:
        """Hold the entries; those of an execution that is held already change nothing."""
        for entry in entries:
            if entry.execution_id in self._ids:
                continue
            self._ids.add(entry.execution_id)
            heap = self._by_org.setdefault(entry.org_id, [])
            heapq.heappush(heap, (entry.due_time, next(self._order), entry))
            if heap[0][2] is entry:
                heapq.heappush(self._heads, (entry.due_time, entry.org_id))

    def next_due(self) -> datetime | None:
        """Return the earliest due time held, or None."""
        while self._heads and not self._is_head(*self._heads[0]):
            heapq.heappop(self._heads)
        return self._heads[0][0] if self._heads else None

    def take_due(self, until: datetime, limit: int) -> list[DueEntry]:
        """Remove and return up to `limit` entries due at or before `until`, orgs taking turns."""
        ready = self._orgs_due(until)
        turns = deque(sorted(ready, key=lambda org: self._served.get(org, -1)))
        taken: list[DueEntry] = []
        while turns and len(taken) < limit:
            org = turns.popleft()
            heap = self._by_org[org]
            entry = heapq.heappop(heap)[2]
            self._ids.discard(entry.execution_id)
            self._served[org] = next(self._turn)
            taken.append(entry)
            if heap and heap[0][0] <= until:
                turns.append(org)
        for org in ready:
            self._restore_head(org)
        return taken

    def _orgs_due(self, until: datetime) -> list[str]:
        """Return the orgs with something due, each once, and take their heads off."""
        orgs: dict[str, None] = {}
        while self._heads and self._heads[0][0] <= until:
            due_time, org = heapq.heappop(self._heads)
            if self._is_head(due_time, org):
                orgs[org] = None
        return list(orgs)

    def _is_head(self, due_time: datetime, org: str) -> bool:
        heap = self._by_org.get(org, [])
        return bool(heap) and heap[0][0] == due_time

    def _restore_head(self, org: str) -> None:
        heap = self._by_org[org]
        if heap:
            heapq.heappush(self._heads, (heap[0][0], org))
        else:
            del self._by_org[org]
            self._served.pop(org, None)
