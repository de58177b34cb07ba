"""What follows from a report: each row of the table in the module's docstring, and the waits between attempts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.domain.execution import ExecutionState, Outcome, StoredResponse
from services.scheduler.domain.job import JobDefinition, OnUnknownOutcome, ResponsePolicy, RetryPolicy
from services.scheduler.domain.outcome import (
    MAX_RETRY_AFTER,
    AttemptReport,
    Decision,
    Defer,
    Finish,
    Result,
    Retry,
    decide_outcome,
    retry_delay,
)
from tests.support.scheduler_values import DAY, HOUR, NOW, SECOND, a_definition, at

S = ExecutionState


def report(result: Result = Result.ANSWERED, status: int = 0, **changes: Any) -> AttemptReport:
    answer = StoredResponse(status) if status else None
    return replace(AttemptReport("e", 1, result, NOW, response=answer), **changes)


def decide(
    what: AttemptReport, definition: JobDefinition | None = None, *, attempt: int = 1, late: timedelta = SECOND
) -> Decision:
    definition = definition or a_definition()
    return decide_outcome(what, definition, attempt_number=attempt, age_from=NOW - late, now=NOW, chance=0.0)


def retried(outcome: Outcome) -> Retry:
    return Retry(outcome, at(2))


REPEATABLE = [
    (report(status=408), Outcome.FAILED, S.FAILED),
    (report(status=425), Outcome.FAILED, S.FAILED),
    (report(status=500), Outcome.FAILED, S.FAILED),
    (report(status=503), Outcome.FAILED, S.FAILED),
    (report(status=599), Outcome.FAILED, S.FAILED),
    (report(status=429), Outcome.RATE_LIMITED, S.RATE_LIMITED),
    (report(status=200, error_reason="CHECK_FAILED"), Outcome.CHECK_FAILED, S.FAILED),
    (report(Result.NOT_SENT, error_reason="DNS_FAILED"), Outcome.FAILED, S.FAILED),
    (report(Result.NOT_SENT, error_reason="TLS_FAILED"), Outcome.FAILED, S.FAILED),
    (report(Result.CONNECT_TIMED_OUT), Outcome.TIMED_OUT, S.TIMED_OUT),
    (report(Result.TIMED_OUT), Outcome.TIMED_OUT, S.TIMED_OUT),
    (report(Result.NO_ANSWER, error_reason="CONNECTION_RESET"), Outcome.UNKNOWN, S.UNKNOWN),
]
LASTING = [
    *(report(status=status) for status in (300, 301, 302, 307, 400, 401, 403, 404, 409, 410, 413, 422)),
    report(Result.NOT_SENT, error_reason="BLOCKED_ADDRESS"),
    report(Result.NOT_SENT, error_reason="BAD_HEADER"),
    report(Result.NOT_SENT, error_reason="BAD_URL"),
]


@pytest.mark.parametrize("status", [200, 201, 204, 299])
@pytest.mark.parametrize("attempt", [1, 3, 9])
def test_a_success_ends_the_execution(status: int, attempt: int) -> None:
    assert decide(report(status=status), attempt=attempt) == Finish(Outcome.SUCCEEDED, S.SUCCEEDED)


@pytest.mark.parametrize(("what", "outcome", "_state"), REPEATABLE)
def test_what_a_repetition_may_mend_is_tried_again(what: AttemptReport, outcome: Outcome, _state: S) -> None:
    assert decide(what, attempt=1) == retried(outcome)
    assert decide(what, attempt=2) == Retry(outcome, at(4))


@pytest.mark.parametrize(("what", "outcome", "state"), REPEATABLE)
def test_attempts_are_used_up(what: AttemptReport, outcome: Outcome, state: S) -> None:
    assert decide(what, attempt=3) == Finish(outcome, state, "MAX_ATTEMPTS")
    once = a_definition(retry=RetryPolicy(max_attempts=1))
    assert decide(what, once, attempt=1) == Finish(outcome, state, "MAX_ATTEMPTS")


@pytest.mark.parametrize("what", LASTING)
def test_what_no_repetition_mends_ends_at_once(what: AttemptReport) -> None:
    expected = what.error_reason or "HTTP_STATUS"
    assert decide(what) == Finish(Outcome.FAILED, S.FAILED, expected)


def test_a_conflict_is_tried_again_where_asked() -> None:
    asked = a_definition(retry=RetryPolicy(retry_conflict=True))
    assert decide(report(status=409), asked) == retried(Outcome.FAILED)


@pytest.mark.parametrize("what", [report(status=410), report(status=200), report(status=503), report(status=429)])
def test_a_target_that_asks_to_stop_ends_the_execution_with_that_reason(what: AttemptReport) -> None:
    decision = decide(replace(what, stop_requested=True))
    assert isinstance(decision, Finish)
    assert decision.reason == "TARGET_ASKED_TO_STOP"
    plain = decide(what, attempt=99)
    assert isinstance(plain, Finish)
    assert (decision.outcome, decision.state) == (plain.outcome, plain.state)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (report(Result.TIMED_OUT), Finish(Outcome.UNKNOWN, S.UNKNOWN, "TIMED_OUT")),
        (report(Result.NO_ANSWER), Finish(Outcome.UNKNOWN, S.UNKNOWN, "NO_ANSWER")),
        (
            report(Result.NO_ANSWER, error_reason="CONNECTION_RESET"),
            Finish(Outcome.UNKNOWN, S.UNKNOWN, "CONNECTION_RESET"),
        ),
        # Certainly not sent, so another try sends it for the first time.
        (report(Result.CONNECT_TIMED_OUT), retried(Outcome.TIMED_OUT)),
        (report(Result.NOT_SENT, error_reason="DNS_FAILED"), retried(Outcome.FAILED)),
        # Answered: it was sent, and is not sent again.
        (report(status=503), Finish(Outcome.FAILED, S.FAILED, "HTTP_STATUS")),
        (report(status=429), Finish(Outcome.RATE_LIMITED, S.RATE_LIMITED, "HTTP_STATUS")),
        (
            report(status=200, error_reason="CHECK_FAILED"),
            Finish(Outcome.CHECK_FAILED, S.FAILED, "CHECK_FAILED"),
        ),
        (report(status=200), Finish(Outcome.SUCCEEDED, S.SUCCEEDED)),
    ],
)
def test_a_job_that_must_not_be_sent_twice_is_not(what: AttemptReport, expected: Decision) -> None:
    assert decide(what, a_definition(on_unknown_outcome=OnUnknownOutcome.FAIL)) == expected


@pytest.mark.parametrize(
    ("codes", "status", "succeeds"),
    [((), 200, True), ((), 300, False), ((404,), 404, True), ((202,), 200, False), ((500,), 500, True)],
)
def test_the_job_says_which_statuses_succeed(codes: tuple[int, ...], status: int, succeeds: bool) -> None:
    decision = decide(report(status=status), a_definition(response=ResponsePolicy(success_codes=codes)))
    assert (decision == Finish(Outcome.SUCCEEDED, S.SUCCEEDED)) is succeeds


@pytest.mark.parametrize("attempt", [1, 99])
def test_what_was_not_tried_waits_without_using_an_attempt(attempt: int) -> None:
    assert decide(report(Result.RELEASED), attempt=attempt) == Defer(NOW, "RELEASED")
    limited = report(Result.DEFERRED, defer_time=at(60), defer_reason="RATE_LIMIT")
    assert decide(limited, attempt=attempt) == Defer(at(60), "RATE_LIMIT")


def test_a_deferral_never_ends_in_the_past() -> None:
    assert decide(report(Result.DEFERRED, defer_time=at(-60))) == Defer(NOW, "DEFERRED")
    assert decide(report(Result.DEFERRED)) == Defer(NOW, "DEFERRED")


def test_a_cancelled_attempt_ends_the_execution() -> None:
    assert decide(report(Result.CANCELLED)) == Finish(Outcome.CANCELLED, S.CANCELLED, "CANCELLED")


@pytest.mark.parametrize(("late", "ends"), [(DAY - 2 * SECOND, False), (DAY - SECOND, True), (9 * DAY, True)])
def test_no_attempt_begins_beyond_the_largest_age(late: timedelta, ends: bool) -> None:
    decision = decide(report(status=503), late=late)
    assert decision == (Finish(Outcome.FAILED, S.FAILED, "MAX_AGE") if ends else retried(Outcome.FAILED))


def test_a_long_retry_after_meets_the_largest_age() -> None:
    asked = report(status=429, retry_after=2 * DAY)
    assert decide(asked) == Finish(Outcome.RATE_LIMITED, S.RATE_LIMITED, "MAX_AGE")
    patient = a_definition(retry=RetryPolicy(max_age=7 * DAY))
    assert decide(asked, patient) == Retry(Outcome.RATE_LIMITED, NOW + MAX_RETRY_AFTER)


POLICY = RetryPolicy()


def test_the_backoff_doubles_up_to_its_bound() -> None:
    delays = [retry_delay(POLICY, attempt, None, 0.0).total_seconds() for attempt in (1, 2, 3, 4, 5, 6, 20, 1000)]
    assert delays == [2, 4, 8, 16, 32, 32, 32, 32]


@pytest.mark.parametrize(
    ("asked", "expected"), [(SECOND, 2), (10 * SECOND, 10), (HOUR, 3600), (9 * DAY, 86_400), (timedelta(0), 2)]
)
def test_a_target_may_ask_for_more_and_not_for_less(asked: timedelta, expected: float) -> None:
    assert retry_delay(POLICY, 1, asked, 0.0).total_seconds() == expected


@settings(derandomize=True, deadline=None)
@given(
    st.integers(1, 50),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.none(), st.timedeltas(min_value=timedelta(0), max_value=3 * DAY)),
    st.timedeltas(min_value=SECOND / 10, max_value=HOUR),
    st.timedeltas(min_value=timedelta(0), max_value=DAY),
)
def test_every_delay_is_bounded(
    attempt: int, chance: float, asked: timedelta | None, initial: timedelta, more: timedelta
) -> None:
    policy = RetryPolicy(initial_backoff=initial, max_backoff=initial + more)
    delay = retry_delay(policy, attempt, asked, chance)
    assert initial <= delay <= max(policy.max_backoff * 1.2, MAX_RETRY_AFTER)
    assert asked is None or delay >= min(asked, MAX_RETRY_AFTER)
    assert retry_delay(policy, attempt, None, 0.0) <= retry_delay(policy, attempt + 1, None, 0.0)
