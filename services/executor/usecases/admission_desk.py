"""Asks gates to let attempts through, and sends each on its way: to its instant, back to the database, or to wait here.

Gates are asked in the lead time, so that an attempt that is not limited starts at its instant as if there were none.
One exchange at a time is under way; what comes meanwhile goes with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.executor.domain.gate_values import (
    SECOND,
    Admitted,
    Ask,
    Busy,
    Deferred,
    TargetKey,
    Verdict,
    from_micros,
    to_micros,
)
from services.executor.usecases.admission_queue import AdmissionQueue
from services.executor.usecases.attempt_runner import AttemptRunner
from services.executor.usecases.due_waiter import DueWaiter
from services.executor.usecases.held_attempts import Held
from services.executor.usecases.ports import SchedulerClock
from services.executor.usecases.shared_limits import PLACE_LEASE_SECONDS, SharedLimits


class AdmissionDesk:
    """Stands between the intake and the due instant."""

    def __init__(
        self,
        *,
        queue: AdmissionQueue,
        limits: SharedLimits,
        waiter: DueWaiter,
        runner: AttemptRunner,
        scheduler_clock: SchedulerClock,
        chance: Callable[[], float],
    ) -> None:
        """Take what makes a number in [0, 1), which keeps those that wait for one instant from falling into step."""
        self._queue = queue
        self._limits = limits
        self._waiter = waiter
        self._runner = runner
        self._scheduler_clock = scheduler_clock
        self._chance = chance

    async def run_once(self) -> int:
        """Wait for attempts and notes, exchange one batch, and return how many attempts were asked for."""
        gathered = await self._queue.gather()
        free = [held for held in gathered.asks if held.target is None]
        gated = [(held, held.target) for held in gathered.asks if held.target is not None]
        if not gated and not gathered.notes:
            self._waiter.add(free)
            return len(free)
        try:
            now = to_micros(self._scheduler_clock.now())
            asks = [(target, self._ask(held, target, now)) for held, target in gated]
            verdicts = await self._limits.exchange(gathered.notes, asks)
        except BaseException:
            self._queue.put_back(gathered)
            raise
        self._queue.told()
        self._follow(free, gated, verdicts)
        return len(gathered.asks)

    def _ask(self, held: Held, target: TargetKey, now: int) -> Ask:
        grant, limits = held.grant, held.grant.limits
        execution_id, fencing_token = grant.lease
        return Ask(
            execution_id,
            fencing_token,
            grant.job_id,
            at=max(to_micros(grant.due_time), now),
            now=now,
            job_limit=limits.job_requests_per_minute,
            host_limit=limits.host_requests_per_minute,
            concurrent_limit=limits.host_concurrent_requests,
            lease_until=now + PLACE_LEASE_SECONDS * SECOND,
            turn=self._queue.turn_micros(held, target),
            spread=int(self._chance() * SECOND),
        )

    def _follow(
        self, free: Sequence[Held], gated: Sequence[tuple[Held, TargetKey]], verdicts: Sequence[Verdict]
    ) -> None:
        going = list(free)
        for (held, target), verdict in zip(gated, verdicts, strict=True):
            match verdict:
                case Admitted():
                    held.let_through(verdict)
                    if held.abort is None:
                        going.append(held)
                    else:
                        self._queue.note(held, None)
                case Deferred(until, reason) if held.abort is None:
                    self._runner.defer(held, from_micros(until), reason)
                case Busy() if held.abort is None:
                    self._queue.hold_back(held, target)
        self._waiter.add(going)
