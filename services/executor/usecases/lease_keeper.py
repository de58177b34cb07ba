"""Keeps the leases of everything held, in batches, and learns which attempts to cut short.

A lease is renewed when a third of it has gone, so that two failed renewals are survived. The new expiry is counted
from the instant at which we asked, never from the answer: what we believe about a lease must end before the lease
does.
"""

from __future__ import annotations

from libs.common.clock import Clock
from libs.common.logs import get_logger
from services.executor.usecases.attempt_runner import AttemptRunner
from services.executor.usecases.held_attempts import Abort, Held, HeldAttempts
from services.executor.usecases.ports import MAX_BATCH, AttemptService, ExtensionVerdict

log = get_logger(__name__)

CHECK_INTERVAL_SECONDS = 1.0
"""How often leases are looked at; short against any lease, and free while none is old enough."""
_RENEW_AFTER = 1 / 3
_ASSUMED_LEASE_SECONDS = 30.0


class LeaseKeeper:
    """Renews what is held, from the grant until its report was taken."""

    def __init__(self, service: AttemptService, held: HeldAttempts, runner: AttemptRunner, clock: Clock) -> None:
        self._service = service
        self._held = held
        self._runner = runner
        self._clock = clock
        self._lease_seconds = _ASSUMED_LEASE_SECONDS

    async def run_once(self) -> int:
        """Renew every lease of which a third has gone, and return how many were asked for.

        Raises:
            UnavailableError: the scheduler is away; the leases go on running out.
        """
        soon = self._clock.monotonic() + self._lease_seconds * (1 - _RENEW_AFTER)
        old = [held for held in self._held if held.expires <= soon]
        for start in range(0, len(old), MAX_BATCH):
            await self._renew(old[start : start + MAX_BATCH])
        return len(old)

    async def _renew(self, old: list[Held]) -> None:
        asked = self._clock.monotonic()
        answer = await self._service.extend([held.lease for held in old])
        self._lease_seconds = answer.lease_seconds
        for held, verdict in zip(old, answer.verdicts, strict=True):
            if verdict is ExtensionVerdict.EXTENDED:
                held.expires = asked + answer.lease_seconds
            elif held.lease in self._held:
                # Else its report was taken while we asked: a lease that is over by our own doing is no loss.
                lost = verdict is ExtensionVerdict.LOST
                log.info("attempt.aborted", execution_id=held.lease.execution_id, verdict=verdict.name)
                self._runner.abort(held, Abort.LOST if lost else Abort.CANCELLED)
