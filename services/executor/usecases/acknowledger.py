"""Takes done entries off the streams, in batches, apart from everything that matters.

Nothing depends on an acknowledgement: an entry that stays behind, because Redis is away or we die here, is delivered
again some time and refused by the database. So nobody waits for it, a failure is dropped, and the buffer forgets its
oldest entries when it overflows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from libs.common.clock import Clock
from libs.common.lifecycle import first_of
from services.executor.usecases.ports import MAX_BATCH, Deliveries, Entry

MAX_WAITING = 20_000
_IDLE_SECONDS = 5.0


class Acknowledger:
    """The entries that wait to be acknowledged."""

    def __init__(self, deliveries: Deliveries, clock: Clock) -> None:
        self._deliveries = deliveries
        self._clock = clock
        self._waiting: deque[Entry] = deque(maxlen=MAX_WAITING)
        self._some = asyncio.Event()

    def add(self, entries: Iterable[Entry]) -> None:
        """Acknowledge these some time soon."""
        self._waiting.extend(entries)
        if self._waiting:
            self._some.set()

    async def run_once(self) -> int:
        """Wait for entries and acknowledge a batch of them; return how many. A failed batch is forgotten."""
        if not self._waiting:
            await first_of(self._some.wait(), self._clock.sleep(_IDLE_SECONDS))
        return await self.flush()

    async def flush(self) -> int:
        """Acknowledge what waits, up to a batch, and return how many."""
        self._some.clear()
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        if batch:
            await self._deliveries.acknowledge(batch)
        if self._waiting:
            self._some.set()
        return len(batch)
