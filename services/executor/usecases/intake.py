"""Turns delivered ids and polls into held attempts: one call for a batch, never one for an attempt.

A call whose outcome is unknown is repeated with the same request id, which returns the grants of the first: asking
anew would leave them leased to us and unknown to us until the lease ran out. For the same reason a lease counts from
the first question. What is refused is acknowledged and forgotten, or asked for again when the scheduler says so.

If we die after a grant, its lease runs out and the poll path gives it to somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from libs.common.errors import UnavailableError
from libs.common.ids import new_id
from libs.common.logs import get_logger
from services.executor.domain.attempt import Refusal
from services.executor.usecases.acknowledger import Acknowledger
from services.executor.usecases.admission_queue import AdmissionQueue
from services.executor.usecases.held_attempts import Held, HeldAttempts
from services.executor.usecases.ports import AttemptService, Entry, GrantBatch, PollMode

log = get_logger(__name__)

MAX_ASKED_AGAIN = 10_000


@dataclass(frozen=True, slots=True)
class Question:
    """A call to the scheduler that stays the same however often it is put."""

    request_id: str
    asked: float
    """When it was put first, on the monotonic clock."""
    execution_ids: tuple[str, ...] = ()
    entries: Mapping[str, Entry] | None = None
    """What to acknowledge, by execution; None where nothing was delivered."""


class Intake:
    """Asks the scheduler for attempts and holds what it grants."""

    def __init__(
        self,
        service: AttemptService,
        held: HeldAttempts,
        admission: AdmissionQueue,
        acknowledger: Acknowledger,
        clock: Clock,
    ) -> None:
        self._service = service
        self._held = held
        self._admission = admission
        self._acknowledger = acknowledger
        self._clock = clock
        self._ask_again: dict[str, datetime] = {}
        self._asking_again: Question | None = None
        self._polling: Question | None = None

    def question(self, entries: Sequence[Entry]) -> Question:
        """Return the question that begins these entries; doubled ones are asked for once and acknowledged."""
        by_id = {entry.execution_id: entry for entry in entries}
        self._acknowledger.add(entry for entry in entries if by_id[entry.execution_id] is not entry)
        return Question(new_id(), self._clock.monotonic(), tuple(by_id), by_id)

    async def begin(self, question: Question) -> int:
        """Begin executions, at most a batch of them, and return how many attempts were granted.

        Raises:
            UnavailableError: the scheduler is away; put the same question again. Nothing was acknowledged.
        """
        batch = await self._service.begin(question.request_id, question.execution_ids)
        return self._take(batch, question)

    async def begin_again(self, now: datetime, max_attempts: int) -> int:
        """Ask again for refused executions whose time has come, and return how many attempts were granted.

        Raises:
            UnavailableError: the scheduler is away; the next call puts the same question again.
        """
        question = self._asking_again
        if question is None:
            ready = (execution_id for execution_id, retry_time in self._ask_again.items() if retry_time <= now)
            ids = tuple(execution_id for execution_id, _ in zip(ready, range(max_attempts), strict=False))
            if not ids:
                return 0
            for execution_id in ids:
                del self._ask_again[execution_id]
            question = Question(new_id(), self._clock.monotonic(), ids)
        self._asking_again = None
        try:
            return await self.begin(question)
        except UnavailableError:
            self._asking_again = question
            raise

    async def poll(self, max_attempts: int, mode: PollMode) -> GrantBatch:
        """Poll once and hold what was granted.

        Raises:
            UnavailableError: the scheduler is away; the next poll returns the grants of this one.
        """
        repeated = self._polling
        question = repeated or Question(new_id(), self._clock.monotonic())
        self._polling = None
        try:
            batch = await self._service.poll(question.request_id, max_attempts, mode, repetition=repeated is not None)
        except UnavailableError:
            self._polling = question
            raise
        self._take(batch, question)
        return batch

    def _take(self, batch: GrantBatch, question: Question) -> int:
        """Hold the grants, and deal with the refusals."""
        entries = question.entries or {}
        expires = question.asked + batch.lease_seconds
        taken: list[Held] = []
        for grant in batch.grants:
            # A repeated call may return what a concurrent one has brought already.
            if grant.lease not in self._held:
                held = Held(grant, expires, entries.get(grant.lease.execution_id))
                self._held.add(held)
                taken.append(held)
        self._forget_refused(batch.refusals, entries)
        if taken:
            crash_point("executor.begun")
            for held in taken:
                self._admission.ask(held)
        return len(taken)

    def _forget_refused(self, refusals: Sequence[Refusal], entries: Mapping[str, Entry]) -> None:
        for refusal in refusals:
            log.debug("attempt.refused", execution_id=refusal.execution_id, reason=refusal.reason)
            if refusal.retry_time is not None and len(self._ask_again) < MAX_ASKED_AGAIN:
                self._ask_again[refusal.execution_id] = refusal.retry_time
            if refusal.execution_id in entries:
                self._acknowledger.add((entries[refusal.execution_id],))
