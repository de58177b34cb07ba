"""Hands back what this executor holds when it is told to stop, so that a restart costs no lag and loses no outcome.

1. What is not due very soon goes back unsent, at once: it uses up no attempt, and another executor takes it in time.
2. What is due now, or running, goes on, and its outcome is reported as ever.
3. What still runs near the deadline is aborted: unsent it goes back, else it is told as unanswered.
4. Gates hear of the last ends: a place that nobody gives back is taken until its lease runs out, and a host that asked
   to be left alone would be called on by the others.

Whatever even that leaves behind is healed by lease expiry.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta

from libs.common.clock import Clock
from libs.common.errors import UnavailableError
from libs.common.lifecycle import first_of
from libs.common.logs import get_logger
from services.executor.usecases.acknowledger import Acknowledger
from services.executor.usecases.admission_queue import AdmissionQueue
from services.executor.usecases.attempt_runner import AttemptRunner
from services.executor.usecases.held_attempts import Abort, HeldAttempts, Phase
from services.executor.usecases.ports import SchedulerClock

log = get_logger(__name__)

KEPT_IF_DUE_WITHIN = timedelta(seconds=0.5)
"""What is due sooner is fired here: handing it over would take about as long."""
REPORTING_SECONDS = 3.0
"""The end of the drain that is kept for the last reports."""
TELLING_SECONDS = 1.0
"""The end of these, which is kept for the last notes to gates."""


class Drain:
    """The end of an executor's life; its intake has stopped before."""

    def __init__(
        self,
        held: HeldAttempts,
        runner: AttemptRunner,
        admission: AdmissionQueue,
        acknowledger: Acknowledger,
        *,
        clock: Clock,
        scheduler_clock: SchedulerClock,
        seconds: float,
    ) -> None:
        self._held = held
        self._runner = runner
        self._admission = admission
        self._acknowledger = acknowledger
        self._clock = clock
        self._scheduler_clock = scheduler_clock
        self._seconds = seconds

    async def run(self, stopped: float) -> None:
        """Return when nothing is held any more, or when the time is over, which counts from the order to stop."""
        reporting = min(REPORTING_SECONDS, self._seconds / 2)
        telling = min(TELLING_SECONDS, reporting / 3)
        released = self._release_waiting()
        log.info("drain.started", released=released, held=len(self._held))
        left = max(stopped + self._seconds - reporting - self._clock.monotonic(), 0.0)
        await first_of(self._held.wait_until_empty(), self._clock.sleep(left))
        aborted = len(self._held)
        for held in self._held:
            self._runner.abort(held, Abort.DRAINED)
        await first_of(self._held.wait_until_empty(), self._clock.sleep(reporting - telling))
        await first_of(self._admission.wait_until_told(), self._clock.sleep(telling))
        with contextlib.suppress(UnavailableError):
            await self._acknowledger.flush()
        log.info("drain.ended", aborted=aborted, left=len(self._held))

    def _release_waiting(self) -> int:
        kept_until = self._scheduler_clock.now() + KEPT_IF_DUE_WITHIN
        waiting = [h for h in self._held if h.phase is Phase.WAITING and h.grant.due_time > kept_until]
        for held in waiting:
            self._runner.abort(held, Abort.DRAINED)
        return len(waiting)
