"""Carries out one held attempt: makes the call, keeps the answer safe, hands in the report, tells the attempt's gate.

A call begins ahead of its instant, and everything but the request itself may happen before: at the instant the request
is built and its connection stands. What fails meanwhile is told at the instant.

Every way out ends in exactly one of two: a report in the batcher, or, when the lease is not ours any more, in letting
go without a word. An attempt whose lease ran out before its POST is never started: somebody else may be making that
POST.

If we die during the call, the lease runs out and the scheduler decides by the job's `on_unknown_outcome`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from libs.common.logs import get_logger
from services.executor.domain.report import (
    CallResult,
    Report,
    Result,
    deferred_report,
    report_of_abort,
    report_of_call,
)
from services.executor.usecases.admission_queue import AdmissionQueue
from services.executor.usecases.answer_delivery import AnswerDelivery
from services.executor.usecases.held_attempts import Abort, Held, Phase
from services.executor.usecases.instants import Instants
from services.executor.usecases.ports import ExecutorObserver, SchedulerClock, TargetCaller
from services.executor.usecases.report_batcher import ReportBatcher

log = get_logger(__name__)


class AttemptRunner:
    """Runs attempts, each in a task of its own, from the start of its call to its report."""

    def __init__(
        self,
        *,
        caller: TargetCaller,
        admission: AdmissionQueue,
        answers: AnswerDelivery,
        reports: ReportBatcher,
        observer: ExecutorObserver,
        instants: Instants,
        clock: Clock,
        scheduler_clock: SchedulerClock,
    ) -> None:
        self._caller = caller
        self._admission = admission
        self._answers = answers
        self._reports = reports
        self._observer = observer
        self._instants = instants
        self._clock = clock
        self._scheduler_clock = scheduler_clock

    def start(self, held: Held, free_slot: Callable[[], None]) -> None:
        """Start an attempt whose instant is near and that has a request slot."""
        held.task = asyncio.create_task(self._run(held, free_slot))

    def abort(self, held: Held, why: Abort) -> None:
        """Cut an attempt short. One whose result stands already keeps it; a stop only cuts its upload."""
        if held.abort is not None or (held.phase is Phase.CONCLUDING and why is not Abort.DRAINED):
            return
        held.abort = why
        if held.phase is Phase.WAITING:
            self._conclude_abort(held)
        elif held.task is not None:
            held.task.cancel()

    def defer(self, held: Held, until: datetime, reason: str) -> None:
        """Put an attempt back unsent, for a limit or an open circuit."""
        ended = self._scheduler_clock.now()
        self._hand_in(held, deferred_report(held.lease, ended, until, reason, held.grant.trace_id))

    async def _run(self, held: Held, free_slot: Callable[[], None]) -> None:
        if held.abort is not None:
            # It was concluded before its task began, which a cancellation would have ended without a single step.
            free_slot()
            return
        held.phase = Phase.CALLING
        call: CallResult | None = None
        try:
            now = self._scheduler_clock.now()
            ahead = max((held.start_time - now).total_seconds(), 0.0)
            if self._expires_unsent(held, ahead):
                held.abort = Abort.EXPIRED
            elif held.is_overdue(now):
                # It waited too long for a request slot: what it was let through for is over.
                held.phase, held.task = Phase.WAITING, None
                self._admission.ask_again(held)
                return
            else:
                call = await self._call(held)
        except asyncio.CancelledError:
            _swallow_own_abort(held)
        finally:
            free_slot()
        if call is None:
            self._conclude_abort(held)
        else:
            await self._conclude_call(held, call)

    async def _call(self, held: Held) -> CallResult:
        """Make the call; its gate hears of its end whatever comes of it."""
        grant, progress = held.grant, held.progress
        instant = held.start_time

        async def release() -> bool:
            start = self._scheduler_clock.now()
            early = start < instant
            if early:
                start = await self._instants.wait_for(instant)
            if self._expires_unsent(held):
                # This process stood still, or nobody could renew the lease while the call got ready.
                self.abort(held, Abort.EXPIRED)
                # Where the abort arrives, as a cancellation.
                await asyncio.sleep(0)
            progress.start_time = start
            limited = held.waits_since is not None or instant > grant.due_time
            self._observer.started((start - grant.due_time).total_seconds(), limited=limited)
            return early

        call: CallResult | None = None
        try:
            call = await self._caller.call(grant, progress, release)
            if progress.start_time is None:
                await release()
        except Exception:
            # A bug of ours must not lose the attempt: it is told as what is certain, and the scheduler retries or not.
            log.exception("attempt.failed_inside", execution_id=grant.lease.execution_id)
            result = Result.NO_ANSWER if progress.may_be_sent else Result.NOT_SENT
            call = CallResult(result, error_reason="EXECUTOR_FAILED", error_message="the executor failed")
        finally:
            self._admission.note(held, call)
        # If we die here the target has answered and nobody knows: the lease runs out and the outcome is unknown.
        crash_point("executor.answered")
        return call

    def _expires_unsent(self, held: Held, ahead: float = 0.0) -> bool:
        """Whether the lease is over in so many seconds, before the request leaves.

        Then it is handed back, unless it has been taken over: an executor too slow to send has lost nothing, and five
        losses would end the execution.
        """
        if self._clock.monotonic() + ahead < held.expires:
            return False
        log.warning("attempt.lease_expired_unsent", execution_id=held.lease.execution_id)
        return True

    async def _conclude_call(self, held: Held, call: CallResult) -> None:
        held.phase = Phase.CONCLUDING
        ended = self._scheduler_clock.now()
        response = None
        if call.answer is not None:
            try:
                response = await self._answers.deliver(held.lease, call.answer)
            except asyncio.CancelledError:
                _swallow_own_abort(held)
                response = self._answers.head_only(call.answer, "the executor stopped before the answer was stored")
        report = report_of_call(held.lease, held.progress, call, ended, response, trace_id=held.grant.trace_id)
        self._hand_in(held, report)

    def _conclude_abort(self, held: Held) -> None:
        """End an attempt that was cut short: without a word when it is not ours any more, else with a report."""
        held.phase = Phase.CONCLUDING
        self._admission.note(held, None)
        if held.abort is Abort.LOST:
            self._observer.lease_lost()
            self._reports.let_go(held)
            return
        ended = self._scheduler_clock.now()
        cancelled = held.abort is Abort.CANCELLED
        self._hand_in(
            held,
            report_of_abort(held.lease, held.progress, ended, cancelled=cancelled, trace_id=held.grant.trace_id),
        )

    def _hand_in(self, held: Held, report: Report) -> None:
        held.phase = Phase.CONCLUDING
        self._observer.concluded(report)
        _tell(held, report)
        self._reports.add(held, report)


def _tell(held: Held, report: Report) -> None:
    """Log the one line of an attempt: what came of it, and whose it was."""
    if not log.is_enabled_for(logging.INFO):
        return
    grant, started, ended = held.grant, report.start_time, report.end_time
    log.info(
        "attempt.concluded",
        execution_id=report.lease.execution_id,
        job_id=grant.job_id,
        org_id=grant.org_id,
        attempt=grant.attempt_number,
        result=report.result.name,
        status_code=report.status_code,
        reason=report.error_reason or report.defer_reason,
        lag_ms=round((started - grant.due_time).total_seconds() * 1e3, 1) if started else None,
        duration_ms=round((ended - started).total_seconds() * 1e3, 1) if started and ended else None,
        trace_id=report.trace_id,
    )


def _swallow_own_abort(held: Held) -> None:
    """Go on after a cancellation that was our own abort; any other one passes through.

    Raises:
        asyncio.CancelledError: the process is being torn down.
    """
    task = asyncio.current_task()
    if held.abort is None or task is None:
        raise asyncio.CancelledError
    task.uncancel()
