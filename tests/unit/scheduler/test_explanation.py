"""The sentences of ExplainJob: each decision with its reason, who held the job and why, and what is only worked out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.scheduler.domain.execution import Cause, Execution, ExecutionState, Outcome
from services.scheduler.domain.explanation import (
    Explanation,
    FireDecision,
    explain_absence,
    explain_execution,
    state_before,
)
from services.scheduler.domain.job import Job, JobState, StateChange, with_state
from services.scheduler.domain.sentences import instant_text, span_text
from tests.support.scheduler_values import DAY, HOUR, MINUTE, NOW, SECOND, a_job, an_attempt, an_execution, at

FIRE = NOW
START = NOW - DAY


def explained(job: Job | None = None, now: Any = NOW + HOUR, **changes: Any) -> Explanation:
    job = job or a_job()
    return explain_execution(an_execution(job, FIRE, **changes), job, now)


def ran(**changes: Any) -> dict[str, Any]:
    attempt = an_attempt(Outcome.SUCCEEDED, status_code=200)
    values = {
        "state": ExecutionState.SUCCEEDED,
        "attempts": (attempt,),
        "attempt_number": 1,
        "start_time": FIRE + timedelta(milliseconds=120),
        "lag_micros": 120_000,
        "end_time": FIRE + 2 * SECOND,
    }
    return values | changes


def held(state: JobState, time: Any, *, reason: str = "", note: str = "", actor: str = "alice") -> Job:
    return with_state(a_job(created=START), StateChange(time, state, actor, reason, note))


def test_a_success_tells_its_lag_attempts_and_end() -> None:
    explanation = explained(**ran())
    assert (explanation.decision, explanation.reason) == (FireDecision.RAN, "")
    assert explanation.text == (
        "The schedule fired at 2040-01-02T12:00:00Z. It began 0.12 s after its due time. "
        "Attempt 1: SUCCEEDED, HTTP 200. It ended SUCCEEDED at 2040-01-02T12:00:02Z."
    )


def test_jitter_is_told_apart_from_lag() -> None:
    assert "jitter made it due 12 s later" in explained(**ran(due_time=FIRE + 12 * SECOND)).text


def test_a_failure_tells_each_attempt_and_why_it_was_the_last() -> None:
    attempts = tuple(
        an_attempt(Outcome.FAILED, number=number, status_code=503, error_reason="HTTP_STATUS") for number in range(1, 9)
    )
    explanation = explained(**ran(state=ExecutionState.FAILED, state_reason="MAX_ATTEMPTS", attempts=attempts))
    assert (explanation.decision, explanation.reason) == (FireDecision.RAN, "MAX_ATTEMPTS")
    assert "Attempt 8: FAILED, HTTP 503 (HTTP_STATUS)." in explanation.text
    assert "Attempt 3:" not in explanation.text
    assert "It ended FAILED (MAX_ATTEMPTS)" in explanation.text


@pytest.mark.parametrize(
    ("changes", "decision", "reason", "text"),
    [
        ({"due_time": NOW + 2 * HOUR}, "UPCOMING", "", "due in 1 h, at 2040-01-02T14:00:00Z"),
        ({}, "WAITING", "NOT_BEGUN", "no executor has begun it yet"),
        (
            {
                "attempt_number": 1,
                "attempts": (an_attempt(Outcome.FAILED, status_code=503),),
                "available_time": NOW + 2 * HOUR,
            },
            "WAITING",
            "RETRY",
            "waits until 2040-01-02T14:00:00Z for attempt 2 of 3. Attempt 1: FAILED, HTTP 503.",
        ),
        (
            {"wait_reason": "JOB_RATE_LIMIT", "deferral_count": 4, "available_time": NOW + 2 * HOUR},
            "WAITING",
            "JOB_RATE_LIMIT",
            "waits until 2040-01-02T14:00:00Z, put back by JOB_RATE_LIMIT. It was put back 4 times",
        ),
        ({"wait_reason": "OVERLAP"}, "WAITING", "OVERLAP", "waits for the execution before it to end"),
        (
            {
                "state": ExecutionState.RUNNING,
                "attempt_number": 2,
                "executor_id": "executor-7",
                "begin_time": NOW + MINUTE,
            },
            "RUNNING",
            "",
            "Attempt 2 of 3 runs since 2040-01-02T12:01:00Z at executor executor-7.",
        ),
        (
            {"state": ExecutionState.RUNNING, "cancel_reason": "CANCELLED_BY_CALLER", "cancel_actor": "bob"},
            "RUNNING",
            "",
            "It is cancelled by bob; the executor ends it soon.",
        ),
        (
            {
                "state": ExecutionState.CANCELLED,
                "state_reason": "CANCELLED_BY_CALLER",
                "cancel_reason": "CANCELLED_BY_CALLER",
                "cancel_actor": "bob",
                "cancel_note": "wrong prompt",
            },
            "SKIPPED",
            "CANCELLED_BY_CALLER",
            "It was cancelled by bob: wrong prompt before it began.",
        ),
        (
            ran(
                state=ExecutionState.CANCELLED,
                state_reason="CANCELLED_BY_CALLER",
                cancel_reason="CANCELLED_BY_CALLER",
                cancel_actor="bob",
            ),
            "RAN",
            "CANCELLED_BY_CALLER",
            "It was cancelled by bob.",
        ),
    ],
)
def test_each_state_has_its_decision(changes: dict[str, Any], decision: str, reason: str, text: str) -> None:
    explanation = explained(**changes)
    assert (explanation.decision, explanation.reason) == (decision, reason)
    assert text in explanation.text


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("OVERLAP", "an earlier execution of the job had not ended when it was due, and the overlap policy is SKIP"),
        ("COALESCED", "of the missed fires only the latest one runs"),
        ("CATCH_UP_LIMIT", "only the latest 100 missed fires run"),
        ("CATCH_UP_WINDOW", "nobody could run it within 1 d"),
        ("MISSED", "runs no missed fires"),
        ("SCHEDULE_CHANGED", "the new one does not name its instant"),
        ("OF_A_LATER_VERSION", "It was skipped: OF_A_LATER_VERSION."),
    ],
)
def test_each_skip_has_its_reason(reason: str, text: str) -> None:
    explanation = explained(state=ExecutionState.SKIPPED, state_reason=reason, end_time=NOW)
    assert (explanation.decision, explanation.reason) == (FireDecision.SKIPPED, reason)
    assert text in explanation.text


@pytest.mark.parametrize("reason", ["OVERLAP", "CATCH_UP_LIMIT", "CATCH_UP_WINDOW"])
def test_a_policy_that_may_have_been_another_one_is_told_so(reason: str) -> None:
    skipped = {"state": ExecutionState.SKIPPED, "state_reason": reason, "end_time": NOW}
    changed = a_job(revision=3, definition_revision=3)
    assert "how it stands now; the job was changed since it fired" in explained(changed, job_revision=2, **skipped).text
    assert "changed since" not in explained(changed, job_revision=3, **skipped).text


@pytest.mark.parametrize(
    ("since", "text"),
    [
        (NOW - HOUR, " That is in force since 2040-01-02T11:00:00Z."),
        (NOW + HOUR, " It was changed once more at 2040-01-02T13:00:00Z."),
    ],
)
def test_a_change_after_the_skip_is_not_told_as_its_cause(since: Any, text: str) -> None:
    job = a_job(schedule_revision=2, schedule_time=since)
    skipped = explained(job, state=ExecutionState.SKIPPED, state_reason="SCHEDULE_CHANGED", end_time=NOW)
    assert skipped.text.endswith(f"the new one does not name its instant.{text}")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"attempt_number": 1, "attempts": (an_attempt(Outcome.FAILED),)},
            "It waited until 2040-01-02T12:01:00Z for attempt 2 of 3. No executor has begun it since. Attempt 1",
        ),
        (
            {"wait_reason": "CIRCUIT_OPEN", "deferral_count": 1},
            "It waited until 2040-01-02T12:01:00Z, put back by CIRCUIT_OPEN. No executor has begun it since. It",
        ),
    ],
)
def test_a_wait_that_is_over_is_told_as_one(changes: dict[str, Any], text: str) -> None:
    assert text in explained(available_time=FIRE + MINUTE, **changes).text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"state": ExecutionState.RUNNING, "attempt_number": 5, "loss_count": 2}, "Attempt 5 of 5 runs"),
        ({"state": ExecutionState.RUNNING, "attempt_number": 4}, "Attempt 4 of 4 runs"),
        ({"attempt_number": 2, "loss_count": 1}, "for attempt 3 of 4."),
    ],
)
def test_no_attempt_is_one_more_than_there_are(changes: dict[str, Any], text: str) -> None:
    """A lost attempt spares those of the policy, and the policy may allow fewer by now."""
    assert text in explained(**changes).text


@pytest.mark.parametrize(
    ("reason", "job", "text"),
    [
        (
            "JOB_PAUSED",
            held(JobState.PAUSED, NOW, reason="PAUSED_BY_CALLER", note="maintenance"),
            "the job was paused by alice at 2040-01-02T12:00:00Z: maintenance.",
        ),
        (
            "JOB_FAILED",
            held(JobState.FAILED, NOW, reason="CONSECUTIVE_FAILURES", note="5 in a row", actor="punctual"),
            "ended as failed by punctual at 2040-01-02T12:00:00Z (CONSECUTIVE_FAILURES): 5 in a row.",
        ),
        (
            "JOB_DELETED",
            held(JobState.DELETED, NOW, reason="DELETED_BY_CALLER"),
            "the job was deleted by alice at 2040-01-02T12:00:00Z.",
        ),
        ("JOB_PAUSED", a_job(), "the job was paused."),
    ],
)
def test_a_hold_says_who_and_why(reason: str, job: Job, text: str) -> None:
    assert text in explained(job, state=ExecutionState.SKIPPED, state_reason=reason, end_time=NOW + SECOND).text


def test_a_fire_that_no_tick_took_up_before_the_job_was_stopped_is_put_down_to_that() -> None:
    job = replace(
        held(JobState.FAILED, NOW + MINUTE, reason="CONSECUTIVE_FAILURES", actor="punctual"), next_fire_time=FIRE
    )
    explanation = explain_absence(FIRE, job, NOW + HOUR, START)
    assert (explanation.decision, explanation.reason) == (FireDecision.NOT_FIRED, "JOB_FAILED")
    assert explanation.text == (
        "It did not run: the job was ended as failed by punctual at 2040-01-02T12:01:00Z (CONSECUTIVE_FAILURES)."
    )


def test_a_skip_is_put_down_to_the_pause_that_caused_it() -> None:
    job = a_job()
    for time, state, actor in ((at(0), "PAUSED", "alice"), (at(60), "ACTIVE", "alice"), (at(120), "PAUSED", "bob")):
        job = with_state(job, StateChange(time, JobState(state), actor))
    assert "by alice" in explained(job, state=ExecutionState.SKIPPED, state_reason="JOB_PAUSED", end_time=at(0)).text


@pytest.mark.parametrize(
    ("cause", "changes", "text"),
    [
        (Cause.MANUAL, {}, "A caller asked for it at 2040-01-02T12:00:00Z."),
        (
            Cause.RETRY_REQUEST,
            {"retried_execution_id": "x-1"},
            "asked at 2040-01-02T12:00:00Z to repeat execution x-1.",
        ),
    ],
)
def test_requests_are_told_from_fires(cause: Cause, changes: dict[str, Any], text: str) -> None:
    assert text in explained(cause=cause, **changes).text


@pytest.mark.parametrize(
    ("job", "fire", "decision", "reason", "text"),
    [
        (a_job(), NOW + 2 * HOUR, "UPCOMING", "", "It fires in 1 h, at 2040-01-02T14:00:00Z."),
        (held(JobState.PAUSED, NOW), NOW + 2 * HOUR, "NOT_FIRED", "JOB_PAUSED", "It will not fire: the job was paused"),
        (
            held(JobState.PAUSED, NOW),
            NOW + MINUTE,
            "NOT_FIRED",
            "JOB_PAUSED",
            "did not fire: the job was paused by alice",
        ),
        (held(JobState.FAILED, NOW), NOW + MINUTE, "NOT_FIRED", "JOB_FAILED", "ended as failed by alice"),
        (held(JobState.DELETED, NOW), NOW + MINUTE, "NOT_FIRED", "JOB_DELETED", "deleted by alice"),
        (held(JobState.COMPLETED, NOW), NOW + MINUTE, "NOT_FIRED", "JOB_COMPLETED", "the job was completed"),
        (a_job(next_fire_time=NOW), NOW + MINUTE, "WAITING", "NOT_DISPATCHED", "no dispatcher has taken it up"),
        (a_job(next_fire_time=NOW + HOUR), NOW + MINUTE, "NOT_FIRED", "NO_RECORD", "please report it"),
    ],
)
def test_what_has_no_record_is_worked_out(job: Job, fire: Any, decision: str, reason: str, text: str) -> None:
    explanation = explain_absence(fire, job, NOW + HOUR, START)
    assert (explanation.decision, explanation.reason, explanation.execution) == (decision, reason, None)
    assert text in explanation.text


def test_a_changed_schedule_is_told_where_it_limits_what_is_known() -> None:
    job = replace(a_job(), schedule_revision=2, schedule_time=NOW)
    assert "in force since 2040-01-02T12:00:00Z" in explain_absence(NOW + 2 * HOUR, job, NOW + HOUR, START).text
    assert "in force" not in explain_absence(NOW + 2 * HOUR, job, NOW + HOUR, NOW + MINUTE).text


def test_the_state_at_an_instant_is_that_of_the_last_change_before_it() -> None:
    job = a_job()
    for seconds, state in ((0, JobState.PAUSED), (60, JobState.ACTIVE)):
        job = with_state(job, StateChange(at(seconds), state, "alice"))
    states = {
        seconds: change.state if (change := state_before(job, at(seconds))) else None for seconds in (0, 1, 60, 61)
    }
    assert states == {0: None, 1: JobState.PAUSED, 60: JobState.PAUSED, 61: JobState.ACTIVE}


def test_only_the_latest_changes_are_kept() -> None:
    job: Job = a_job()
    for number in range(250):
        job = with_state(job, StateChange(at(number), JobState.PAUSED, f"a{number}"))
    assert [change.actor for change in job.state_changes] == [f"a{number}" for number in range(150, 250)]


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(milliseconds=1), "0.001 s"),
        (timedelta(seconds=59.5), "59.5 s"),
        (MINUTE, "1 min"),
        (HOUR + 5 * MINUTE + SECOND, "1 h 5 min"),
        (2 * DAY + SECOND, "2 d 1 s"),
        (-5 * SECOND, "-5 s"),
    ],
)
def test_spans_are_said_briefly(span: timedelta, text: str) -> None:
    assert span_text(span) == text


def test_instants_have_milliseconds_only_where_they_count() -> None:
    assert instant_text(NOW + timedelta(milliseconds=5)) == "2040-01-02T12:00:00.005Z"


def execution_of(explanation: Explanation) -> Execution:
    assert explanation.execution is not None
    return explanation.execution


def test_an_explanation_carries_its_record() -> None:
    assert execution_of(explained()).fire_time == FIRE
