"""Hands back what waits too long for a slot because its org has its whole share: unsent, and without using an attempt.

Waiting goes on in the database, where it keeps nobody out of this executor's room.
"""

from __future__ import annotations

from services.executor.domain.gate_values import DeferReason
from services.executor.usecases.admission_queue import AdmissionQueue
from services.executor.usecases.attempt_runner import AttemptRunner
from services.executor.usecases.due_waiter import DueWaiter


class SlotShares:
    """Looks after what waits for a slot."""

    def __init__(self, waiter: DueWaiter, admission: AdmissionQueue, runner: AttemptRunner) -> None:
        self._waiter = waiter
        self._admission = admission
        self._runner = runner

    async def run_once(self) -> int:
        """Hand back what has waited too long, and return how many attempts that were."""
        away = self._waiter.turned_away()
        for held, until in away:
            # Its gate gets place and slot back: it was let through, and does not start.
            self._admission.note(held, None)
            self._runner.defer(held, until, DeferReason.ORG_CONCURRENCY)
        return len(away)
