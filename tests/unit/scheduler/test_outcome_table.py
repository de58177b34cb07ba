"""The table of docs/outcomes.md, row by row: what the page says is what is decided."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.scheduler.domain.begin import End, Grant, decide_begin
from services.scheduler.domain.execution import ExecutionState, Phase, StoredResponse
from services.scheduler.domain.job import JobDefinition, OnUnknownOutcome, RetryPolicy
from services.scheduler.domain.outcome import (
    STOP_REASON,
    AttemptReport,
    Decision,
    Defer,
    Finish,
    Result,
    Retry,
    decide_outcome,
)
from tests.support.scheduler_values import NOW, SECOND, a_definition, a_job, an_execution, at

PAGE = Path(__file__).parents[3] / "docs" / "outcomes.md"
RETRY = a_definition(retry=RetryPolicy(retry_conflict=True))
FAIL = replace(RETRY, on_unknown_outcome=OnUnknownOutcome.FAIL)
LOST = "its executor died, or lost its lease (EXECUTOR_LOST)"


def report(result: Result = Result.ANSWERED, status: int = 0, **changes: Any) -> AttemptReport:
    answer = StoredResponse(status) if status else None
    return replace(AttemptReport("e", 1, result, NOW, response=answer), **changes)


def answers(*statuses: int, **changes: Any) -> list[AttemptReport]:
    return [report(status=status, **changes) for status in statuses]


def reasons(result: Result, *names: str) -> list[AttemptReport]:
    return [report(result, error_reason=name) for name in names]


def waits(*names: str) -> list[AttemptReport]:
    return [report(Result.DEFERRED, defer_reason=name, defer_time=at(60)) for name in names]


CASES: Mapping[str, Sequence[AttemptReport]] = {
    "a success status, and its checks hold": answers(200, 201, 202, 204, 299),
    "a success status, and a check fails": answers(200, 201, error_reason="CHECK_FAILED"),
    "408, 425": answers(408, 425),
    "409, and the job asks for it (`retry_conflict`)": answers(409),
    "429": [*answers(429), *answers(429, retry_after=SECOND)],
    "500 to 599": answers(500, 501, 502, 503, 504, 529, 599),
    "410": answers(410, stop_requested=True),
    "a success status with the stop header": answers(200, 204, stop_requested=True),
    "another status with the stop header": answers(302, 400, 404, 409, 500, 503, stop_requested=True),
    "a redirect that is not followed: BAD_REDIRECT, TOO_MANY_REDIRECTS, 301, 302, 303": [
        *answers(301, 302, 303, 304, 300),
        *answers(307, 308, error_reason="BAD_REDIRECT"),
        *answers(307, 308, error_reason="TOO_MANY_REDIRECTS"),
    ],
    "any other status": answers(
        400, 401, 402, 403, 404, 405, 406, 411, 413, 415, 418, 422, 423, 424, 426, 428, 431, 451, 600, 999
    ),
    "not sent: DNS_FAILED, CONNECT_FAILED, TLS_FAILED": reasons(
        Result.NOT_SENT, "DNS_FAILED", "CONNECT_FAILED", "TLS_FAILED"
    ),
    "not sent: EXECUTOR_FAILED": reasons(Result.NOT_SENT, "EXECUTOR_FAILED"),
    "not sent: BAD_URL, BAD_HEADER, BLOCKED_ADDRESS": reasons(
        Result.NOT_SENT, "BAD_URL", "BAD_HEADER", "BLOCKED_ADDRESS"
    ),
    "no connection in time: CONNECT_TIMED_OUT": reasons(Result.CONNECT_TIMED_OUT, "CONNECT_TIMED_OUT"),
    "sent, out of time: FIRST_BYTE_TIMED_OUT, TOTAL_TIMED_OUT": reasons(
        Result.TIMED_OUT, "FIRST_BYTE_TIMED_OUT", "TOTAL_TIMED_OUT"
    ),
    "sent, no whole answer: CONNECTION_LOST, ANSWER_BROKEN_OFF, BAD_ANSWER": reasons(
        Result.NO_ANSWER, "CONNECTION_LOST", "ANSWER_BROKEN_OFF", "BAD_ANSWER"
    ),
    "sent, and the executor gave up: EXECUTOR_STOPPED, EXECUTOR_FAILED": reasons(
        Result.NO_ANSWER, "EXECUTOR_STOPPED", "EXECUTOR_FAILED"
    ),
    "cancelled by a caller": [report(Result.CANCELLED)],
    "handed back unsent by an executor that stops": [report(Result.RELEASED)],
    "put back by a limit: JOB_RATE_LIMIT, TARGET_RATE_LIMIT, TARGET_CONCURRENCY, ORG_CONCURRENCY": waits(
        "JOB_RATE_LIMIT", "TARGET_RATE_LIMIT", "TARGET_CONCURRENCY", "ORG_CONCURRENCY"
    ),
    "put back by an open circuit: CIRCUIT_OPEN": waits("CIRCUIT_OPEN"),
}


def rows() -> Mapping[str, Sequence[str]]:
    """Return the other cells of the page's first table by each row's first cell."""
    table = re.search(r"^\| the attempt \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE.read_text("utf-8"), re.MULTILINE)
    assert table is not None
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[1].splitlines()]
    return {first: [cell.strip(" |") for cell in others] for first, *others in cells}


def decide(what: AttemptReport, definition: JobDefinition, attempt: int = 1, late: timedelta = SECOND) -> Decision:
    return decide_outcome(what, definition, attempt_number=attempt, age_from=NOW - late, now=NOW, chance=0.0)


def check(what: AttemptReport, outcome: str, cell: str, definition: JobDefinition) -> None:
    """Hold the decision to what a cell says."""
    first, last = decide(what, definition), decide(what, definition, attempt=3)
    if cell == "waits":
        assert outcome == "none"
        assert first == last
        assert isinstance(first, Defer)
        return
    retried, _, end = cell.rpartition("retry, then ")
    state, _, paused = end.partition(", and the job is ")
    if retried or cell.startswith("retry"):
        assert isinstance(first, Retry)
        assert first.outcome == outcome
        assert isinstance(last, Finish)
        assert last.reason == "MAX_ATTEMPTS"
    else:
        assert first == last
        assert isinstance(first, Finish)
        assert (first.reason == STOP_REASON) == (paused == "paused")
    assert isinstance(last, Finish)
    assert last.state == state
    if definition is RETRY:
        assert last.outcome == outcome


def test_every_row_has_its_cases() -> None:
    assert set(rows()) == {*CASES, LOST}


@pytest.mark.parametrize("row", CASES)
def test_the_page_says_what_is_decided(row: str) -> None:
    outcome, on_retry, on_fail = rows()[row]
    for what in CASES[row]:
        check(what, outcome, on_retry, RETRY)
        check(what, outcome, on_fail, FAIL)


def test_the_page_says_what_a_lost_executor_means() -> None:
    outcome, on_retry, on_fail = rows()[LOST]
    assert (outcome, on_retry, on_fail) == ("LOST", "retry, then FAILED", "UNKNOWN")
    running = an_execution(
        a_job(RETRY), state=ExecutionState.RUNNING, phase=Phase.LEASED, wake_time=NOW, attempt_number=1
    )
    assert decide_begin(running, a_job(RETRY), NOW) == Grant(lost_lease=True)
    often = replace(running, loss_count=4)
    assert decide_begin(often, a_job(RETRY), NOW) == End(ExecutionState.FAILED, "EXECUTOR_LOST_REPEATEDLY")
    assert decide_begin(running, a_job(FAIL), NOW) == End(ExecutionState.UNKNOWN, "EXECUTOR_LOST")


@pytest.mark.parametrize(
    ("reason", "state"), [("CIRCUIT_OPEN", ExecutionState.FAILED), ("JOB_RATE_LIMIT", ExecutionState.RATE_LIMITED)]
)
def test_no_wait_outlives_the_largest_age(reason: str, state: ExecutionState) -> None:
    (what,) = waits(reason)
    age = RETRY.retry.max_age
    assert decide(what, RETRY, late=age - 60 * SECOND) == Defer(at(60), reason)
    end = decide(what, RETRY, late=age - 59 * SECOND)
    assert isinstance(end, Finish)
    assert (end.state, end.reason) == (state, "MAX_AGE")


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        (report(status=503), 2),
        (report(status=503, retry_after=90 * SECOND), 90),
        (report(status=429, retry_after=timedelta(days=3)), 86_400),
        (report(status=429, retry_after=timedelta(0)), 2),
    ],
)
def test_the_wait_before_a_retry(what: AttemptReport, seconds: float) -> None:
    patient = replace(RETRY, retry=RetryPolicy(max_age=timedelta(days=7)))
    decision = decide(what, patient)
    assert isinstance(decision, Retry)
    assert decision.at == at(seconds)
