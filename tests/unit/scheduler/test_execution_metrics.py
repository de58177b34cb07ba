"""What becomes of executions, as Prometheus sees it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from libs.common.metrics import Metrics
from services.scheduler.adapters.metrics.execution_metrics import ExecutionMetrics
from services.scheduler.domain.execution import Attempt, Cause, DeliveryPath, ExecutionState, Outcome, Phase
from services.scheduler.domain.job import JobState
from services.scheduler.usecases.ports.execution_writes import FinishWrite, WaitWrite
from tests.support.scheduler_values import NOW, an_execution


class Bench:
    def __init__(self) -> None:
        self._metrics = Metrics()
        self.counts = ExecutionMetrics(self._metrics)

    def value(self, name: str, **labels: str) -> float | None:
        return self._metrics.registry.get_sample_value(f"punctual_{name}", labels)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def an_attempt(outcome: Outcome) -> Attempt:
    return Attempt(1, outcome, NOW, NOW, "x1", 1, "RETRY")


def an_end(state: ExecutionState, **changes: Any) -> FinishWrite:
    return FinishWrite("e1", 1, ExecutionState.RUNNING, state, changes.pop("reason", ""), NOW, settle=False, **changes)


def test_an_end_counts_by_state_cause_and_outcome_and_is_the_last_completion(bench: Bench) -> None:
    succeeded = an_end(ExecutionState.SUCCEEDED, attempt=an_attempt(Outcome.SUCCEEDED))
    bench.counts.finished([succeeded, replace(succeeded, cause=Cause.MANUAL)])
    assert bench.value("executions_total", state="SUCCEEDED", cause="SCHEDULE") == 1
    assert bench.value("executions_total", state="SUCCEEDED", cause="MANUAL") == 1
    assert bench.value("attempts_total", outcome="SUCCEEDED") == 2
    assert bench.value("last_completion_timestamp_seconds") == NOW.timestamp()


def test_what_did_not_run_is_no_completion(bench: Bench) -> None:
    bench.counts.finished([an_end(ExecutionState.SKIPPED, reason="OVERLAP"), an_end(ExecutionState.CANCELLED)])
    assert bench.value("executions_skipped_total", reason="OVERLAP") == 1
    assert bench.value("last_completion_timestamp_seconds") == 0


def test_new_executions_count_by_cause_and_those_born_skipped_as_ended(bench: Bench) -> None:
    skipped = an_execution(state=ExecutionState.SKIPPED, state_reason="COALESCED", phase=None, wake_time=None)
    late = an_execution(create_time=NOW + timedelta(minutes=5), phase=Phase.DISPATCHED)
    bench.counts.inserted([an_execution(), skipped, late])
    assert bench.value("executions_materialized_total", cause="SCHEDULE") == 3
    assert bench.value("executions_total", state="SKIPPED", cause="SCHEDULE") == 1
    assert bench.value("executions_skipped_total", reason="COALESCED") == 1
    assert bench.value("executions_caught_up_total") == 1


def test_retries_deferrals_and_releases_are_told_apart(bench: Bench) -> None:
    bench.counts.waiting(
        [
            WaitWrite("e1", 1, NOW, attempt=an_attempt(Outcome.TIMED_OUT)),
            WaitWrite("e2", 1, NOW, "CIRCUIT_OPEN"),
            WaitWrite("e3", 1, NOW, "RELEASED", released=True),
            WaitWrite("e4", 1, NOW, "a reason that nobody knows"),
        ]
    )
    assert bench.value("attempts_total", outcome="TIMED_OUT") == 1
    reasons = ("CIRCUIT_OPEN", "RELEASED", "OTHER")
    assert [bench.value("deferrals_total", reason=reason) for reason in reasons] == [1, 1, 1]


def test_documents_that_cannot_be_read_are_counted_by_collection(bench: Bench) -> None:
    assert bench.value("documents_unreadable_total", collection="jobs") == 0
    bench.counts.unreadable("jobs")
    bench.counts.unreadable("jobs")
    bench.counts.unreadable("executions")
    assert bench.value("documents_unreadable_total", collection="jobs") == 2
    assert bench.value("documents_unreadable_total", collection="executions") == 1


def test_poison_lost_attempts_and_stopped_jobs_are_counted(bench: Bench) -> None:
    bench.counts.begun(DeliveryPath.POLL, 2, [an_attempt(Outcome.LOST)])
    bench.counts.finished([an_end(ExecutionState.FAILED, reason="EXECUTOR_LOST_REPEATEDLY")])
    bench.counts.stopped(JobState.FAILED, "CONSECUTIVE_FAILURES")
    bench.counts.swept(ExecutionState.SKIPPED, "JOB_PAUSED", 7)
    assert bench.value("attempts_begun_total", path="POLL") == 2
    assert bench.value("attempts_total", outcome="LOST") == 1
    assert bench.value("executions_poisoned_total") == 1
    assert bench.value("jobs_stopped_total", state="FAILED", reason="CONSECUTIVE_FAILURES") == 1
    assert bench.value("executions_skipped_total", reason="JOB_PAUSED") == 7
