"""What came of an attempt, as the executor saw it. What follows from it is the scheduler's decision.

The one question that matters for correctness is whether the target may have seen the request. `NOT_SENT`,
`CONNECT_TIMED_OUT`, `RELEASED` and `DEFERRED` are certain that it did not; `NO_ANSWER`, `TIMED_OUT` and `CANCELLED`
are not, and in doubt the doubtful result is reported.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime

from libs.common.value_type import value_type
from services.executor.domain.answer import Answer, RateLimitObservation
from services.executor.domain.attempt import Header, Lease

MAX_MESSAGE_CHARS = 1_000
"""Longer error messages are cut."""


class Result(enum.Enum):
    """How far an attempt came; the values are those of the wire."""

    ANSWERED = 1
    NOT_SENT = 2
    NO_ANSWER = 3
    TIMED_OUT = 4
    CONNECT_TIMED_OUT = 5
    CANCELLED = 6
    RELEASED = 7
    DEFERRED = 8


@dataclass(slots=True)
class CallProgress:
    """How far a call has come, kept up to date while it runs, so that an abort at any await knows what to report."""

    start_time: datetime | None = None
    """When the request could leave; None: it never could."""
    may_be_sent: bool = False
    """A connection stood at its instant, so bytes of the request may have left; never goes back to False."""


@value_type
class CallResult:
    """What came of one call of a target, redirects included."""

    result: Result
    status_code: int = 0
    error_reason: str = ""
    error_message: str = ""
    answer: Answer | None = None
    retry_after: float | None = None
    """Seconds that the target asked to wait."""
    rate_limit: RateLimitObservation | None = None
    redirect_count: int = 0
    stop_requested: bool = False
    """The target asked to stop the job."""


@value_type
class ReportedResponse:
    """An answer as it travels in a report: its bytes inline, or a reference to where they were uploaded."""

    headers: tuple[Header, ...]
    content_type: str
    body: bytes = field(repr=False)
    encoding: str
    stored_size_bytes: int
    total_size_bytes: int
    truncated: bool
    sha256: bytes
    blob_id: str = ""
    head: bytes = field(default=b"", repr=False)
    warning: str = ""


@value_type
class Report:
    """What is told to the scheduler about one lease; repeating it is harmless, since the fencing token names it."""

    lease: Lease
    result: Result
    start_time: datetime | None = None
    end_time: datetime | None = None
    status_code: int = 0
    error_reason: str = ""
    error_message: str = ""
    response: ReportedResponse | None = None
    defer_time: datetime | None = None
    defer_reason: str = ""
    retry_after: float | None = None
    rate_limit: RateLimitObservation | None = None
    redirect_count: int = 0
    stop_requested: bool = False
    trace_id: str = ""


def report_of_abort(lease: Lease, progress: CallProgress, ended: datetime, *, cancelled: bool, trace_id: str) -> Report:
    """Return the report of a call that was cut short: for a caller's cancellation, or because the executor stops.

    A stop hands back what was certainly not sent, which uses up no attempt, and reports the rest as unanswered.
    """
    if cancelled:
        return Report(lease, Result.CANCELLED, progress.start_time, ended, trace_id=trace_id)
    if not progress.may_be_sent:
        return Report(lease, Result.RELEASED, end_time=ended, trace_id=trace_id)
    return Report(
        lease,
        Result.NO_ANSWER,
        progress.start_time,
        ended,
        error_reason="EXECUTOR_STOPPED",
        error_message="the executor stopped before the answer came",
        trace_id=trace_id,
    )


def report_of_call(
    lease: Lease,
    progress: CallProgress,
    call: CallResult,
    ended: datetime,
    response: ReportedResponse | None,
    *,
    trace_id: str,
) -> Report:
    """Return the report of a finished call with its answer, uploaded already if it had to be."""
    return Report(
        lease,
        call.result,
        progress.start_time,
        ended,
        status_code=call.status_code,
        error_reason=call.error_reason,
        error_message=call.error_message[:MAX_MESSAGE_CHARS],
        response=response,
        retry_after=call.retry_after,
        rate_limit=call.rate_limit,
        redirect_count=call.redirect_count,
        stop_requested=call.stop_requested,
        trace_id=trace_id,
    )


def deferred_report(lease: Lease, ended: datetime, until: datetime, reason: str, trace_id: str) -> Report:
    """Return the report that puts an attempt back unsent until a limit or a circuit lets it through."""
    return Report(lease, Result.DEFERRED, end_time=ended, defer_time=until, defer_reason=reason, trace_id=trace_id)
