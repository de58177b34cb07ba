"""Decides what follows from a reported attempt: the one function behind retries, deferrals and final states.

docs/outcomes.md tells the rules as a table, and tests/unit/scheduler/test_outcome_table.py holds this function to each
of its rows.
"""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

from libs.common.value_type import value_type
from services.scheduler.domain.execution import (
    ExecutionState,
    Outcome,
    RateLimitObservation,
    StoredResponse,
)
from services.scheduler.domain.job import JobDefinition, OnUnknownOutcome, RetryPolicy

MAX_RETRY_AFTER = timedelta(days=1)
"""The longest wait that a target can ask for; longer ones are cut to it."""

BACKOFF_JITTER = 0.2
"""The largest part of the backoff that is added to it by chance, so that failures do not return in step."""

STOP_REASON = "TARGET_ASKED_TO_STOP"
"""Why an execution ended whose target asked to stop; its job is paused for it."""

UNRETRYABLE_UNSENT = frozenset({"BAD_HEADER", "BAD_URL", "BLOCKED_ADDRESS"})
"""Reasons of unsent requests that no repetition mends."""


class Result(enum.StrEnum):
    """How far an attempt came, as its executor saw it."""

    ANSWERED = "ANSWERED"
    NOT_SENT = "NOT_SENT"
    NO_ANSWER = "NO_ANSWER"
    TIMED_OUT = "TIMED_OUT"
    CONNECT_TIMED_OUT = "CONNECT_TIMED_OUT"
    CANCELLED = "CANCELLED"
    RELEASED = "RELEASED"
    DEFERRED = "DEFERRED"


_MAY_BE_SENT = frozenset({Result.ANSWERED, Result.NO_ANSWER, Result.TIMED_OUT})


@value_type
class AttemptReport:
    """What came of one attempt under one lease."""

    execution_id: str
    fencing_token: int
    result: Result
    end_time: datetime
    start_time: datetime | None = None
    error_reason: str = ""
    error_message: str = ""
    response: StoredResponse | None = None
    defer_time: datetime | None = None
    defer_reason: str = ""
    retry_after: timedelta | None = None
    rate_limit: RateLimitObservation | None = None
    redirect_count: int = 0
    stop_requested: bool = False
    trace_id: str = ""


@value_type
class Finish:
    """The execution ends in this state; for STOP_REASON its job is paused."""

    outcome: Outcome
    state: ExecutionState
    reason: str = ""


@value_type
class Retry:
    """The execution waits and then begins its next attempt."""

    outcome: Outcome
    at: datetime


@value_type
class Defer:
    """The execution waits, and the attempt does not count."""

    at: datetime
    reason: str


Decision = Finish | Retry | Defer


def decide_outcome(
    report: AttemptReport,
    definition: JobDefinition,
    *,
    attempt_number: int,
    age_from: datetime,
    now: datetime,
    chance: float,
) -> Decision:
    """Decide what follows from a report.

    `age_from` is the due time, or when the fire was noticed if that was later; `chance` in [0, 1) makes the jitter.
    """
    latest = age_from + definition.retry.max_age
    match report.result:
        case Result.RELEASED | Result.DEFERRED:
            return _put_back(report, now, latest)
        case Result.CANCELLED:
            return Finish(Outcome.CANCELLED, ExecutionState.CANCELLED, "CANCELLED")
    outcome, retryable = classify(report, definition)
    state = _state_after(outcome)
    if report.stop_requested:
        return Finish(outcome, state, STOP_REASON)
    if outcome is Outcome.SUCCEEDED:
        return Finish(outcome, state)
    once = definition.on_unknown_outcome is OnUnknownOutcome.FAIL and report.result in _MAY_BE_SENT
    if once and report.result is not Result.ANSWERED:
        return Finish(Outcome.UNKNOWN, ExecutionState.UNKNOWN, _reason(report))
    if once or not retryable:
        return Finish(outcome, state, _reason(report))
    if attempt_number >= definition.retry.max_attempts:
        return Finish(outcome, state, "MAX_ATTEMPTS")
    at = now + retry_delay(definition.retry, attempt_number, _asked_wait(report, outcome, now), chance)
    if at > latest:
        return Finish(outcome, state, "MAX_AGE")
    return Retry(outcome, at)


def retry_delay(policy: RetryPolicy, attempt_number: int, retry_after: timedelta | None, chance: float) -> timedelta:
    """Return the wait after the given attempt: the backoff with its jitter, or what the target asked for, if longer."""
    doublings: int = 2 ** min(attempt_number - 1, 30)
    backoff = min(policy.initial_backoff * doublings, policy.max_backoff) * (1 + BACKOFF_JITTER * chance)
    if retry_after is None:
        return backoff
    return max(backoff, min(retry_after, MAX_RETRY_AFTER))


def _put_back(report: AttemptReport, now: datetime, latest: datetime) -> Defer | Finish:
    """Return the wait for a limit or a circuit; one that would outlive the execution ends it, or it might never end."""
    if report.result is Result.RELEASED:
        return Defer(now, "RELEASED")
    at, reason = max(report.defer_time or now, now), report.defer_reason or "DEFERRED"
    if at <= latest:
        return Defer(at, reason)
    outcome = Outcome.FAILED if reason == "CIRCUIT_OPEN" else Outcome.RATE_LIMITED
    return Finish(outcome, _state_after(outcome), "MAX_AGE")


def _asked_wait(report: AttemptReport, outcome: Outcome, now: datetime) -> timedelta | None:
    """Return how long the target asked to wait; a 429 without a Retry-After may tell it by its reset."""
    if report.retry_after is not None or outcome is not Outcome.RATE_LIMITED or report.rate_limit is None:
        return report.retry_after
    reset = report.rate_limit.reset_time
    return None if reset is None else max(reset - now, timedelta(0))


def classify(report: AttemptReport, definition: JobDefinition) -> tuple[Outcome, bool]:
    """Return the attempt's outcome and whether a further attempt may mend it."""
    match report.result:
        case Result.NOT_SENT:
            return Outcome.FAILED, report.error_reason not in UNRETRYABLE_UNSENT
        case Result.NO_ANSWER:
            return Outcome.UNKNOWN, True
        case Result.TIMED_OUT | Result.CONNECT_TIMED_OUT:
            return Outcome.TIMED_OUT, True
    status = report.response.status_code if report.response else 0
    if is_success_status(status, definition.response.success_codes):
        if report.error_reason == "CHECK_FAILED":
            return Outcome.CHECK_FAILED, True
        return Outcome.SUCCEEDED, False
    if status == 429:
        return Outcome.RATE_LIMITED, True
    retryable = status in {408, 425} or 500 <= status <= 599 or (status == 409 and definition.retry.retry_conflict)
    return Outcome.FAILED, retryable


def is_success_status(status: int, success_codes: tuple[int, ...]) -> bool:
    """Whether an answer's status is a success for the job."""
    return status in success_codes if success_codes else 200 <= status <= 299


def _state_after(outcome: Outcome) -> ExecutionState:
    match outcome:
        case Outcome.SUCCEEDED:
            return ExecutionState.SUCCEEDED
        case Outcome.TIMED_OUT:
            return ExecutionState.TIMED_OUT
        case Outcome.RATE_LIMITED:
            return ExecutionState.RATE_LIMITED
        case Outcome.UNKNOWN:
            return ExecutionState.UNKNOWN
        case _:
            return ExecutionState.FAILED


def attempt_reason(report: AttemptReport, outcome: Outcome) -> str:
    """Return why an attempt failed; empty for one that did not."""
    return report.error_reason if outcome in {Outcome.SUCCEEDED, Outcome.CANCELLED} else _reason(report)


def _reason(report: AttemptReport) -> str:
    if report.error_reason:
        return report.error_reason
    match report.result:
        case Result.ANSWERED:
            return "HTTP_STATUS"
        case Result.TIMED_OUT | Result.CONNECT_TIMED_OUT:
            return "TIMED_OUT"
        case _:
            return report.result.value
