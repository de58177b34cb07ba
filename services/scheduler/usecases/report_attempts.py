"""Applies what executors report: decides retry, deferral or end of each, and writes a batch with few bulk writes.

A report counts under the execution's present lease only (promise P3), and a repetition of one that counted is told so,
so an executor may repeat a batch until it hears. Only then does it acknowledge its stream entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from libs.common.turns import in_turns
from services.scheduler.domain.begin import is_one_time
from services.scheduler.domain.callback import callback_job, is_told
from services.scheduler.domain.execution import Attempt, Execution, ExecutionState, Outcome, head_of
from services.scheduler.domain.job import Job, JobState
from services.scheduler.domain.outcome import (
    STOP_REASON,
    AttemptReport,
    Decision,
    Defer,
    Finish,
    Result,
    Retry,
    attempt_reason,
    classify,
    decide_outcome,
)
from services.scheduler.domain.target_host import TARGET_WAIT_REASONS
from services.scheduler.domain.target_url import split_target_url
from services.scheduler.usecases.ports.answer_quota import AnswerQuota
from services.scheduler.usecases.ports.due_nudge import DueNudge
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.execution_writes import FinishWrite, WaitWrite
from services.scheduler.usecases.ports.job_store import JobStore
from services.scheduler.usecases.settle import SettleFinished, settled_write

MAX_ERROR_MESSAGE = 1000
"""Characters of an attempt's error message that are kept."""

Reported = tuple[str, int]
"""Names a report: the execution's id and the fencing token."""

QUOTA_WARNING = "the org has used up its quota of stored bytes, so only the beginning of the answer is kept"


@dataclass(frozen=True, slots=True)
class ReportAttempts:
    """Serves the executors' reports."""

    jobs: JobStore
    executions: ExecutionStore
    settle: SettleFinished
    nudge: DueNudge
    answers: AnswerQuota
    clock: Clock
    chance: Callable[[], float]
    """Makes the jitter of retries: a number in [0, 1)."""

    async def __call__(self, reports: Sequence[AttemptReport]) -> Mapping[Reported, ExecutionState]:
        """Apply reports; returns those that counted, now or by an earlier copy, with their executions' states."""
        executions, jobs = await self._read(reports)
        counted: dict[Reported, ExecutionState] = {}
        writes: dict[str, FinishWrite | WaitWrite] = {}
        async for report in in_turns(reports):
            execution = executions.get(report.execution_id)
            if execution is None:
                continue
            if report.fencing_token and report.fencing_token == execution.reported_token:
                counted[report.execution_id, report.fencing_token] = execution.state
            elif _holds_lease(execution, report) and report.execution_id not in writes:
                job = callback_job(execution) if execution.callback else jobs.get(execution.job_id)
                writes[report.execution_id] = self._write(report, execution, job)
        if counted:
            await self.executions.confirm()
        # A repetition is not decided again: the clock or an edit of the job could turn a retry into an end.
        ended = [executions[execution_id] for (execution_id, _), state in counted.items() if state.is_final]
        await self.settle([settled_write(execution, self.clock.now()) for execution in ended], jobs)
        finishes = [write for write in writes.values() if isinstance(write, FinishWrite)]
        waits = [write for write in writes.values() if isinstance(write, WaitWrite)]
        for execution_id in await self._apply(finishes, waits, executions, jobs):
            write = writes[execution_id]
            state = write.state if isinstance(write, FinishWrite) else ExecutionState.READY
            counted[execution_id, write.fencing_token] = state
        return counted

    async def _read(self, reports: Sequence[AttemptReport]) -> tuple[Mapping[str, Execution], Mapping[str, Job]]:
        """Return the executions and their jobs: of plain successes as this replica remembers them, else as they stand.

        A plain success is written under its fencing token, and nothing that may have changed since decides about it.
        """
        ids = {report.execution_id for report in reports}
        executions = self.executions.recall(ids)
        jobs = self.jobs.recall({execution.job_id for execution in executions.values()})
        asked = {
            report.execution_id
            for report in reports
            if (execution := executions.get(report.execution_id)) is None
            or (job := jobs.get(execution.job_id)) is None
            or not _is_plain_success(report, execution, job)
        }
        if not asked:
            return executions, jobs
        loaded = await self.executions.load(asked)
        kept = {execution_id: execution for execution_id, execution in executions.items() if execution_id not in asked}
        return {**kept, **loaded}, {**jobs, **await self.jobs.load({one.job_id for one in loaded.values()})}

    def _write(self, report: AttemptReport, execution: Execution, job: Job | None) -> FinishWrite | WaitWrite:
        if report.response is not None and self.answers.is_full(execution.org_id):
            report = replace(report, response=head_of(report.response, QUOTA_WARNING))
        match self._decide(report, execution, job):
            case Finish() as decision:
                return _finish(report, execution, job, decision)
            case Retry(outcome, at):
                attempt = _attempt(report, execution, outcome, "RETRY")
                return WaitWrite(
                    report.execution_id,
                    report.fencing_token,
                    at,
                    attempt=attempt,
                    response=report.response,
                    lag_micros=_first_lag(report, execution),
                    trace_id=report.trace_id,
                )
            case Defer(at, reason):
                return WaitWrite(
                    report.execution_id,
                    report.fencing_token,
                    at,
                    reason,
                    wait_host=_wait_host(reason, job),
                    trace_id=report.trace_id,
                    released=report.result is Result.RELEASED,
                )

    def _decide(self, report: AttemptReport, execution: Execution, job: Job | None) -> Decision:
        if job is None:
            return Finish(Outcome.UNKNOWN, ExecutionState.UNKNOWN, "JOB_DELETED")
        decision = decide_outcome(
            report,
            job.definition,
            # A lost attempt grows the number that the target sees, and spares the budget of retries.
            attempt_number=execution.attempt_number - execution.loss_count,
            # A fire that is caught up late has its whole age before it.
            age_from=max(execution.due_time, execution.create_time),
            now=self.clock.now(),
            chance=self.chance(),
        )
        if execution.cancel_reason and not isinstance(decision, Finish):
            return Finish(Outcome.CANCELLED, ExecutionState.CANCELLED, execution.cancel_reason)
        return decision

    async def _apply(
        self,
        finishes: Sequence[FinishWrite],
        waits: Sequence[WaitWrite],
        executions: Mapping[str, Execution],
        jobs: Mapping[str, Job],
    ) -> frozenset[str]:
        finished = await self.executions.finish(finishes) if finishes else frozenset()
        # If we die here, successes left their jobs as they were (the sweep completes one-time jobs), and failures are
        # SETTLING: the settler does the rest. A repeated report settles once more, which counts nothing twice.
        crash_point("scheduler.reported")
        self._count_answers([write for write in finishes if write.execution_id in finished], executions)
        waiting = await self.executions.wait(waits) if waits else frozenset()
        await self.settle([write for write in finishes if write.execution_id in finished], jobs)
        if waiting:
            self.nudge.notify(min(write.available_time for write in waits))
        return finished | waiting

    def _count_answers(self, finished: Sequence[FinishWrite], executions: Mapping[str, Execution]) -> None:
        """Count the answers that stay; that of an attempt before a retry is replaced by the next."""
        for write in finished:
            if write.response is not None:
                org_id = executions[write.execution_id].org_id
                self.answers.add_answer(org_id, write.response.stored_size_bytes, write.end_time)


def _is_plain_success(report: AttemptReport, execution: Execution, job: Job) -> bool:
    """Whether a report ends its execution as SUCCEEDED, and leaves nothing to do for its job but to complete it.

    The job is as its begin read it. A cursor that may come to its end meanwhile has to be read again, and so have the
    failures in a row of a job whose executions run beside each other.
    """
    definition = job.definition
    one_time = is_one_time(definition.schedule)
    return (
        _holds_lease(execution, report)
        and report.result is Result.ANSWERED
        and not report.stop_requested
        # Of two reads at once the older one may be remembered.
        and job.revision == execution.job_revision
        and classify(report, definition)[0] is Outcome.SUCCEEDED
        and job.state is JobState.ACTIVE
        and not job.consecutive_failures
        and (one_time or execution.exclusive)
        and (job.next_fire_time is None or (definition.schedule.end_time is None and not one_time))
        and not is_told(definition.callback, ExecutionState.SUCCEEDED)
    )


def _holds_lease(execution: Execution, report: AttemptReport) -> bool:
    """Whether the report may count; `finish` and `wait` decide it, this only spares them the hopeless ones."""
    return execution.state is ExecutionState.RUNNING and report.fencing_token == execution.fencing_token


def _wait_host(reason: str, job: Job | None) -> str:
    """Return the host that a deferred execution waits for, if it is a host that it waits for."""
    if job is None or reason not in TARGET_WAIT_REASONS:
        return ""
    return split_target_url(job.definition.target.url).host_port


def _finish(report: AttemptReport, execution: Execution, job: Job | None, decision: Finish) -> FinishWrite:
    reason = execution.cancel_reason if decision.state is ExecutionState.CANCELLED else decision.reason
    return FinishWrite(
        execution_id=report.execution_id,
        fencing_token=report.fencing_token,
        expected=ExecutionState.RUNNING,
        state=decision.state,
        reason=reason or decision.reason,
        end_time=report.end_time,
        settle=(
            decision.state is not ExecutionState.SUCCEEDED
            or decision.reason == STOP_REASON
            or (job is not None and is_told(job.definition.callback, decision.state))
        ),
        attempt=_attempt(report, execution, decision.outcome, decision.reason or decision.state.value),
        response=report.response,
        lag_micros=_first_lag(report, execution),
        trace_id=report.trace_id,
        is_report=True,
        cause=execution.cause,
    )


def _first_lag(report: AttemptReport, execution: Execution) -> int | None:
    """Return the lag, in microseconds, if this is the first attempt of the execution that started."""
    if report.start_time is None or execution.start_time is not None:
        return None
    return (report.start_time - execution.due_time) // timedelta(microseconds=1)


def _attempt(report: AttemptReport, execution: Execution, outcome: Outcome, decision: str) -> Attempt:
    return Attempt(
        number=execution.attempt_number,
        outcome=outcome,
        begin_time=execution.begin_time or execution.due_time,
        start_time=report.start_time,
        end_time=report.end_time,
        executor_id=execution.executor_id,
        fencing_token=report.fencing_token,
        decision=decision,
        status_code=report.response.status_code if report.response else 0,
        error_reason=attempt_reason(report, outcome),
        error_message=report.error_message[:MAX_ERROR_MESSAGE],
        rate_limit=report.rate_limit,
        redirect_count=report.redirect_count,
    )
