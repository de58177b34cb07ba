"""Puts held entries on the stream a short lead before they are due, so that executors wait for the instant, not for us.

Early delivery is harmless: an entry carries its due time. Many entries at a time are delivered earlier, for beginning
them takes longer: a thousand jobs of one minute shall all be ready by its first instant, not begun one behind another
after it.

While Redis is away entries are kept and tried again; one that is overdue by the grace is dropped, counted and logged,
because the poll path runs it by then. While the stream is merely full they stay held, and nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from libs.common.errors import UnavailableError
from libs.common.lifecycle import first_of
from libs.common.logs import get_logger
from services.dispatcher.domain.backpressure import Bounds
from services.dispatcher.usecases.backlog import Backlog
from services.dispatcher.usecases.held_entries import HeldEntries
from services.dispatcher.usecases.ports import Stream

# Entries due this close together share a round trip; the later ones are that much earlier than the lead.
_COALESCE = timedelta(milliseconds=200)
_LEAD_OF_AN_ENTRY = timedelta(milliseconds=1)
"""What each entry held adds to the lead: about what beginning one costs, on a slow core."""
_LONGEST_LEAD = timedelta(seconds=1.5)
"""A pause or a change within the lead may come too late; so it grows no further, however many entries are held."""
_LONGEST_WAIT_SECONDS = 1.0
"""Until the time of the next entry is looked at anew, for the clocks' offset may have changed."""
_EMPTY_WAIT_SECONDS = 10.0
_FULL_WAIT_SECONDS = 0.02
_HAND_OVER_TRIES = 3
_HAND_OVER_WAIT_SECONDS = 0.2
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)

log = get_logger(__name__)


class Deliver:
    """One pass waits for the next entry or delivers one batch. `now` is the scheduler's clock as well as we know it."""

    def __init__(
        self,
        stream: Stream,
        held: HeldEntries,
        backlog: Backlog,
        clock: Clock,
        *,
        now: Callable[[], datetime],
        bounds: Bounds,
        lead: timedelta,
        grace: timedelta,
    ) -> None:
        self._stream = stream
        self._held = held
        self._backlog = backlog
        self._clock = clock
        self._now = now
        self._bounds = bounds
        self._lead = lead
        self._grace = grace
        self.dropped = 0
        """Entries left to the poll path since the start."""

    async def run_once(self) -> int:
        """Deliver what is due within the lead, a batch at most; return how many entries went out.

        Raises:
            UnavailableError: Redis is away; the entries are kept, except those overdue by the grace.
        """
        wait_seconds = self._seconds_to_next()
        if wait_seconds > 0:
            await self._wait(wait_seconds)
            return 0
        limit = self._bounds.deliver_limit(self._backlog.entries)
        if not limit:
            await self._clock.sleep(_FULL_WAIT_SECONDS)
            return 0
        try:
            return await self._deliver(self._now() + self._lead_by_now() + _COALESCE, limit)
        except UnavailableError:
            self._drop(self._now() - self._grace, "STREAM_UNAVAILABLE")
            raise

    def wake(self) -> None:
        """End the wait for the next entry at once."""
        self._held.changed.set()

    async def hand_over(self) -> int:
        """Deliver everything now, whatever its due time, before the process ends; return how many entries went out.

        The bound on the stream does not count here: what is not handed over would wait for the poll path's grace.
        """
        delivered = 0
        failures = 0
        while len(self._held) and failures < _HAND_OVER_TRIES:
            try:
                delivered += await self._deliver(_END_OF_TIME, self._bounds.deliver_batch)
            except UnavailableError as error:
                failures += 1
                log.warning("delivery.hand_over_failed", reason=error.reason, error=str(error), failures=failures)
                await self._clock.sleep(_HAND_OVER_WAIT_SECONDS)
        self._drop(_END_OF_TIME, "DRAINING")
        return delivered

    async def _deliver(self, until: datetime, limit: int) -> int:
        batch = self._held.take_due(until, limit)
        try:
            await self._stream.add(batch)
        except Exception:
            # Any of them may be on the stream by now; delivering it again costs one refused begin.
            self._held.add(batch)
            raise
        # If we die here, the entries are on the stream and nobody needs to know that we put them there.
        crash_point("dispatcher.delivered")
        self._backlog.note_delivered(len(batch))
        return len(batch)

    def _drop(self, due_by: datetime, reason: str) -> None:
        """Leave to the poll path what was due by then."""
        dropped = self._held.take_due(due_by, len(self._held))
        if dropped:
            self.dropped += len(dropped)
            log.warning("delivery.dropped", reason=reason, count=len(dropped), dropped_total=self.dropped)

    def _seconds_to_next(self) -> float:
        """Return how long to wait for an entry that comes or whose time comes; 0 or less when there is one now."""
        next_due = self._held.next_due()
        if next_due is None:
            return _EMPTY_WAIT_SECONDS
        return min((next_due - self._lead_by_now() - self._now()).total_seconds(), _LONGEST_WAIT_SECONDS)

    def _lead_by_now(self) -> timedelta:
        return max(self._lead, min(self._lead + len(self._held) * _LEAD_OF_AN_ENTRY, _LONGEST_LEAD))

    async def _wait(self, seconds: float) -> None:
        """Wait that long, or until an earlier entry arrives."""
        changed = self._held.changed
        await first_of(self._clock.sleep(seconds), changed.wait())
        changed.clear()
