"""Reads one shard of the streams, as many entries as there is room for, and begins them batch by batch.

At a low rate entries come one by one, well ahead of their due time. Beginning each alone would cost a call apiece, so
a short batch waits a little for company, never for more than a part of the time that is left: batches grow and no
fire is late for it.
"""

from __future__ import annotations

import asyncio

from libs.common.clock import Clock
from libs.common.errors import UnavailableError
from libs.common.lifecycle import first_of
from services.executor.usecases.fetch_status import FetchStatus
from services.executor.usecases.held_attempts import HeldAttempts
from services.executor.usecases.intake import Intake, Question
from services.executor.usecases.ports import MAX_BATCH, Deliveries, Entry, SchedulerClock

BLOCK_SECONDS = 1.0
"""How long a read waits for entries; shorter than the silence that counts as an outage."""
LATE_SECONDS = 1.5
"""How late a delivery is when executions of its time are about to count as overdue, which they do after 2 s."""
_SHARE_OF_TIME_LEFT = 0.25
_WORTH_WAITING_SECONDS = 0.002


class StreamReader:
    """The reader of one shard."""

    def __init__(
        self,
        *,
        shard: int,
        readers: int,
        deliveries: Deliveries,
        intake: Intake,
        held: HeldAttempts,
        status: FetchStatus,
        clock: Clock,
        scheduler_clock: SchedulerClock,
        stopping: asyncio.Event,
        gather_seconds: float,
    ) -> None:
        self.shard = shard
        self._readers = readers
        self._deliveries = deliveries
        self._intake = intake
        self._held = held
        self._status = status
        self._clock = clock
        self._scheduler_clock = scheduler_clock
        self._stopping = stopping
        self._gather_seconds = gather_seconds
        self._unbegun: Question | None = None

    async def run_once(self) -> int:
        """Read a batch and begin it; return how many attempts were granted. Waits while there is no room.

        While the scheduler is away, what was read is neither acknowledged nor forgotten, and nothing more is read.

        Raises:
            UnavailableError: Redis or the scheduler is away.
        """
        question = self._unbegun or await self._next_question()
        if question is None:
            return 0
        self._unbegun = None
        try:
            return await self._intake.begin(question)
        except UnavailableError:
            self._unbegun = question
            raise

    async def _next_question(self) -> Question | None:
        if not self._held.free:
            await first_of(self._held.wait_for_room(), self._stopping.wait(), self._clock.sleep(BLOCK_SECONDS))
            return None
        wanted = self._wanted()
        entries = await self._read(wanted, BLOCK_SECONDS)
        if entries:
            left = self._seconds_left(entries)
            if left < -LATE_SECONDS:
                self._status.delivered_late()
            if len(entries) < wanted:
                entries += await self._company(left, wanted - len(entries))
        self._status.reading_stopped(self.shard)
        return self._intake.question(entries) if entries else None

    def _wanted(self) -> int:
        """Return this reader's share of the room, so that many shards together do not ask for many times of it."""
        return min(max(self._held.free // self._readers, 1), MAX_BATCH)

    def _seconds_left(self, entries: list[Entry]) -> float:
        return (min(entry.due_time for entry in entries) - self._scheduler_clock.now()).total_seconds()

    async def _company(self, left: float, wanted: int) -> list[Entry]:
        """Wait a little for more entries, if there is time, and return those that came."""
        wait = min(self._gather_seconds, left * _SHARE_OF_TIME_LEFT)
        if wait < _WORTH_WAITING_SECONDS:
            return []
        await self._clock.sleep(wait)
        try:
            return await self._read(wanted, 0)
        except UnavailableError:
            # What was read before the failure is still to be begun; the next read tells the failure again.
            return []

    async def _read(self, wanted: int, block_seconds: float) -> list[Entry]:
        self._status.read_started(self.shard)
        try:
            entries = await self._until_stopped(wanted, block_seconds)
        except UnavailableError:
            self._status.read_failed(self.shard)
            raise
        self._status.read_succeeded(self.shard)
        return entries

    async def _until_stopped(self, wanted: int, block_seconds: float) -> list[Entry]:
        """Read, but give up when the executor stops: an entry that is lost in that moment comes by the poll path."""
        reading = asyncio.ensure_future(self._deliveries.read(self.shard, wanted, block_seconds))
        try:
            await first_of(reading, self._stopping.wait())
        except asyncio.CancelledError:
            reading.cancel()
            raise
        if not reading.done():
            reading.cancel()
            await asyncio.wait({reading})
        return [] if reading.cancelled() else list(reading.result())
