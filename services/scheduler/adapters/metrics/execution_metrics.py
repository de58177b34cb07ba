"""Counts what becomes of executions and jobs, as the stores write it.

Counted is what the database took. A write that is repeated because its answer got lost may count twice: these numbers
are for rates, the records are for accounting.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from prometheus_client import Counter

from libs.common.metrics import Metrics
from services.scheduler.domain.execution import Attempt, Cause, DeliveryPath, Execution, ExecutionState, Outcome
from services.scheduler.domain.job import JobState
from services.scheduler.domain.planning import MISFIRE_GRACE
from services.scheduler.usecases.ports.execution_writes import FinishWrite, WaitWrite

SKIP_REASONS = (
    "OVERLAP",
    "COALESCED",
    "CATCH_UP_LIMIT",
    "MISSED",
    "CATCH_UP_WINDOW",
    "JOB_PAUSED",
    "JOB_FAILED",
    "JOB_DELETED",
    "SCHEDULE_CHANGED",
)
DEFERRAL_REASONS = ("JOB_RATE_LIMIT", "TARGET_RATE_LIMIT", "TARGET_CONCURRENCY", "ORG_CONCURRENCY", "CIRCUIT_OPEN")
POISON_REASON = "EXECUTOR_LOST_REPEATEDLY"
_Key = TypeVar("_Key")
_NOT_RUN = frozenset({ExecutionState.SKIPPED, ExecutionState.CANCELLED})


class ExecutionMetrics:
    """Hears of written changes, a batch at a time."""

    def __init__(self, metrics: Metrics) -> None:
        # Not `created`: that is the suffix which the client library gives to the time of a counter's beginning.
        created = metrics.counter("executions_materialized", "Executions that came to be, by cause.", ("cause",))
        finals = metrics.counter("executions", "Executions that ended, by final state and cause.", ("state", "cause"))
        attempts = metrics.counter("attempts", "Attempts that ended, by outcome.", ("outcome",))
        begun = metrics.counter("attempts_begun", "Attempts granted to executors, by delivery path.", ("path",))
        self._created = {cause: created.labels(cause.value) for cause in Cause}
        self._finals = {
            (state, cause): finals.labels(state.value, cause.value)
            for state in ExecutionState
            if state.is_final
            for cause in Cause
        }
        self._attempts = {outcome: attempts.labels(outcome.value) for outcome in Outcome}
        self._begun = {path: begun.labels(path.value) for path in DeliveryPath}
        self._skips = metrics.bounded_counter(
            "executions_skipped", "Executions that were not run, by reason.", "reason", SKIP_REASONS
        )
        self._deferrals = metrics.bounded_counter(
            "deferrals",
            "Attempts put back for later without using up an attempt, by reason; RELEASED by a draining executor.",
            "reason",
            (*DEFERRAL_REASONS, "RELEASED"),
        )
        self._poisoned = metrics.counter(
            "executions_poisoned", "Executions that were given up because each of their executors died."
        )
        self._caught_up = metrics.counter(
            "executions_caught_up", "Executions for fires that were missed by more than the misfire grace."
        )
        self._completion = metrics.gauge(
            "last_completion_timestamp_seconds",
            "When an execution ended last that ran, as a Unix time; 0 before the first one.",
            across="max",
        )
        self._unreadable = metrics.bounded_counter(
            "documents_unreadable",
            "Stored documents that this version could not read and passed over, each time that one was met.",
            "collection",
            ("jobs", "executions"),
        )
        stopped = metrics.counter("jobs_stopped", "Jobs that the scheduler stopped itself.", ("state", "reason"))
        self._stopped = {
            (state, reason): stopped.labels(state.value, reason)
            for state, reason in (
                (JobState.FAILED, "CONSECUTIVE_FAILURES"),
                (JobState.FAILED, "SCHEDULE_UNUSABLE"),
                (JobState.PAUSED, "TARGET_ASKED_TO_STOP"),
            )
        }

    def inserted(self, executions: Sequence[Execution]) -> None:
        """Hear of new executions; some are born SKIPPED."""
        for cause, count in Tally(e.cause for e in executions).items():
            self._created[cause].inc(count)
        for execution in executions:
            if execution.state is ExecutionState.SKIPPED:
                self._ended(execution.state, execution.cause, execution.state_reason)
            elif execution.create_time - execution.due_time > MISFIRE_GRACE:
                self._caught_up.inc()

    def begun(self, path: DeliveryPath, count: int, lost: Iterable[Attempt]) -> None:
        """Hear of grants, and of the attempts whose leases had run out."""
        self._begun[path].inc(count)
        for attempt in lost:
            self._attempts[attempt.outcome].inc()

    def finished(self, writes: Iterable[FinishWrite]) -> None:
        """Hear of ends."""
        last: datetime | None = None
        finals: Tally[tuple[ExecutionState, Cause]] = Tally()
        outcomes: Tally[Outcome] = Tally()
        for write in writes:
            finals[write.state, write.cause] += 1
            if write.attempt is not None:
                outcomes[write.attempt.outcome] += 1
            if write.state is ExecutionState.SKIPPED:
                self._skips.add(write.reason)
            if write.reason == POISON_REASON:
                self._poisoned.inc()
            if write.state not in _NOT_RUN and (last is None or write.end_time > last):
                last = write.end_time
        _add(self._finals, finals)
        _add(self._attempts, outcomes)
        if last is not None:
            self._completion.set(last.timestamp())

    def waiting(self, writes: Iterable[WaitWrite]) -> None:
        """Hear of retries and deferrals."""
        for write in writes:
            if write.attempt is not None:
                self._attempts[write.attempt.outcome].inc()
            else:
                self._deferrals.add("RELEASED" if write.released else write.reason)

    def swept(self, state: ExecutionState, reason: str, count: int) -> None:
        """Hear of scheduled executions that a change of their job ended, all at once."""
        if count:
            self._ended(state, Cause.SCHEDULE, reason, count)

    def cancelled(self, execution: Execution) -> None:
        """Hear of an execution that a caller ended before it ran."""
        self._finals[ExecutionState.CANCELLED, execution.cause].inc()

    def stopped(self, state: JobState, reason: str) -> None:
        """Hear of a job that the scheduler took out of service."""
        child = self._stopped.get((state, reason))
        if child is not None:
            child.inc()

    def unreadable(self, collection: str) -> None:
        """Hear of a document on the dispatch path that could not be read."""
        self._unreadable.add(collection)

    def _ended(self, state: ExecutionState, cause: Cause, reason: str, count: int = 1) -> None:
        self._finals[state, cause].inc(count)
        if state is ExecutionState.SKIPPED:
            self._skips.add(reason, count)


def _add(children: Mapping[_Key, Counter], tally: Mapping[_Key, int]) -> None:
    for key, count in tally.items():
        children[key].inc(count)
