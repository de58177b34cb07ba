"""The poll path: redelivery always, delivery while Redis is away.

Nothing else re-queues. An entry that Redis lost, an attempt whose executor died, an id whose dispatcher died between
claim and XADD: all of them turn up here, because the scheduler sees that they are overdue.
"""

from __future__ import annotations

import asyncio
import random

from libs.common.clock import Clock
from libs.common.lifecycle import first_of
from services.executor.domain.delivery_mode import Mode
from services.executor.usecases.fetch_status import FetchStatus
from services.executor.usecases.held_attempts import HeldAttempts
from services.executor.usecases.intake import Intake
from services.executor.usecases.ports import MAX_BATCH, PollMode, SchedulerClock

BUSY_INTERVAL_SECONDS = 0.15
"""Between polls that are the only delivery."""
WATCH_INTERVAL_SECONDS = 0.25
"""How often the mode is looked at while nothing else is to do: it bounds how late an outage is noticed."""
INTERVALS_BEHIND = 2
"""How many times longer polls for overdue work are apart while the streams deliver late. To poll for what is on its way
anyway would double the work just when there is most of it: each one would be granted here, and refused there."""
_JITTER = 0.2


class Poller:
    """Polls at the pace that the mode asks for, and asks again for what was refused for a while."""

    def __init__(
        self,
        *,
        intake: Intake,
        held: HeldAttempts,
        status: FetchStatus,
        clock: Clock,
        scheduler_clock: SchedulerClock,
        stopping: asyncio.Event,
        interval_seconds: float,
        jitter: random.Random,
    ) -> None:
        self._intake = intake
        self._held = held
        self._status = status
        self._clock = clock
        self._scheduler_clock = scheduler_clock
        self._stopping = stopping
        self._interval = interval_seconds
        self._jitter = jitter
        self._last_poll = self._next_poll = clock.monotonic()

    async def run_once(self) -> int:
        """Wait for the next poll's instant, poll if there is room, and return how many attempts were granted.

        Raises:
            UnavailableError: the scheduler is away.
        """
        await self._intake.begin_again(self._scheduler_clock.now(), min(self._held.free, MAX_BATCH))
        wait = self._wait_seconds()
        if wait > 0:
            self._status.changed.clear()
            pause = self._clock.sleep(min(wait, WATCH_INTERVAL_SECONDS))
            await first_of(pause, self._status.changed.wait(), self._stopping.wait())
            return 0
        if not self._held.free:
            await first_of(self._held.wait_for_room(), self._stopping.wait(), self._clock.sleep(WATCH_INTERVAL_SECONDS))
            return 0
        polled, pace = self._clock.monotonic(), self._pace()
        mode = PollMode.OVERDUE if self._status.mode is Mode.STREAMS else PollMode.ALL
        # One that fails is followed by the next as soon as the loop's wait after failures is over: were there a wait
        # here in between, which does not fail, each failure would count, and be logged, as the first one.
        batch = await self._intake.poll(min(self._held.free, MAX_BATCH), mode)
        self._status.fetched()
        self._last_poll, self._next_poll = polled, polled + pace
        if batch.more and not self._late_streams():
            self._next_poll = polled
        return len(batch.grants)

    def _wait_seconds(self) -> float:
        """Return how long the next poll is away; an outage of Redis brings it near at once."""
        now = self._clock.monotonic()
        if self._status.mode is not Mode.STREAMS:
            self._next_poll = min(self._next_poll, now + BUSY_INTERVAL_SECONDS)
        elif self._late_streams():
            return max(self._next_poll, self._last_poll + INTERVALS_BEHIND * self._interval) - now
        return self._next_poll - now

    def _late_streams(self) -> bool:
        return self._status.mode is Mode.STREAMS and self._status.behind

    def _pace(self) -> float:
        """Return the pause between polls; with jitter where many executors would otherwise fall into step."""
        if self._status.mode is not Mode.STREAMS:
            return BUSY_INTERVAL_SECONDS
        return self._interval * self._jitter.uniform(1 - _JITTER, 1 + _JITTER)
