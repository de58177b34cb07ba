"""Callbacks: signed POSTs that tell of the end of an execution, or that a job failed.

A callback is itself carried out as an execution, of a job of its own that nobody made and that exists only in it: so
leases, retries, limits, the address guard and the record of attempts are those of every execution, and nothing that is
asked about the told job (overlap, failures in a row, completion) ever sees it. Its id, which is its webhook-id, is made
of what it tells of: telling twice is one insert that fails.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from services.scheduler.domain.execution import FAILURES, Callback, Cause, Execution, ExecutionState, Phase
from services.scheduler.domain.job import (
    CallbackPolicy,
    Job,
    JobDefinition,
    JobState,
    RateLimitPolicy,
    ResponsePolicy,
    RetryPolicy,
    StateChange,
    Target,
    TimeoutPolicy,
)
from services.scheduler.domain.schedule import OneTimeAt, Schedule

RETRY = RetryPolicy(
    max_attempts=15,
    initial_backoff=timedelta(seconds=5),
    max_backoff=timedelta(hours=2),
    max_age=timedelta(days=1),
    retry_conflict=True,
)
"""How long a callback is tried: eleven hours, if each attempt fails at once."""

TIMEOUT = TimeoutPolicy(total=timedelta(seconds=20), connect=timedelta(seconds=10))
RESPONSE = ResponsePolicy(max_size_bytes=1_000, store_full_response=False)


FAILURES_REASON = "CONSECUTIVE_FAILURES"
"""Why a job failed that had too many failed executions in a row; the note of that change ends with the last one."""


def is_told(policy: CallbackPolicy, state: ExecutionState) -> bool:
    """Whether a job's policy has somebody told of an execution that ended in a state."""
    if not policy.url:
        return False
    return (policy.notify_failure and state in FAILURES) or (
        policy.notify_success and state is ExecutionState.SUCCEEDED
    )


def execution_ended(execution: Execution, job: Job, now: datetime) -> Execution:
    """Return the callback that tells of the end of an execution."""
    last = execution.attempts[-1] if execution.attempts else None
    data = {
        "execution_id": execution.execution_id,
        **_of_job(job),
        "cause": execution.cause.value,
        "state": execution.state.value,
        "state_reason": execution.state_reason,
        "fire_time": _text(execution.fire_time),
        "due_time": _text(execution.due_time),
        "start_time": _text(execution.start_time),
        "end_time": _text(execution.end_time),
        "attempt_count": execution.attempt_number,
        "status_code": last.status_code if last else 0,
        "error_reason": last.error_reason if last else "",
    }
    body = _body(f"execution.{execution.state.value.lower()}", execution.end_time or now, data)
    return _callback(execution, Callback(job.definition.callback.url, body, job.job_id), "ended", now)


def failing_change(job: Job, execution_ids: Collection[str]) -> tuple[StateChange, str] | None:
    """Return when the job failed by one of these executions, and by which; None when it did not."""
    for change in job.state_changes:
        if change.state is JobState.FAILED and change.reason == FAILURES_REASON:
            for execution_id in execution_ids:
                if change.note.endswith(f" {execution_id}"):
                    return change, execution_id
    return None


def job_failed(job: Job, last: Execution, change: StateChange, url: str, now: datetime) -> Execution:
    """Return the callback that tells an org that a job failed, by the execution that was the last one too many."""
    data = {
        **_of_job(job),
        "state": change.state.value,
        "state_reason": change.reason,
        "state_note": change.note,
        "execution_id": last.execution_id,
        "end_time": _text(last.end_time),
    }
    return _callback(
        last, Callback(url, _body("job.failed", last.end_time or now, data), job.job_id), "job_failed", now
    )


def callback_job(execution: Execution) -> Job:
    """Return the job that a callback is an execution of."""
    if execution.callback is None:
        raise ValueError("not a callback")
    definition = JobDefinition(
        name="callback",
        schedule=Schedule(OneTimeAt(execution.fire_time)),
        target=Target(execution.callback.url, prompt=""),
        project_id=execution.project_id,
        retry=RETRY,
        timeout=TIMEOUT,
        rate_limit=RateLimitPolicy(max_requests_per_minute=0),
        response=RESPONSE,
    )
    return Job(
        job_id=execution.job_id,
        org_id=execution.org_id,
        definition=definition,
        create_time=execution.create_time,
        update_time=execution.create_time,
        creator="",
        revision=execution.job_revision,
        schedule_revision=execution.schedule_revision,
    )


def _callback(told: Execution, callback: Callback, kind: str, now: datetime) -> Execution:
    # No dash: up to the first one an execution's id is its job's, and this job has this execution only.
    callback_id = f"{told.execution_id.replace('-', '_')}_{kind}"
    return Execution(
        execution_id=callback_id,
        job_id=callback_id,
        org_id=told.org_id,
        project_id=told.project_id,
        partition=told.partition,
        cause=Cause.CALLBACK,
        fire_time=now,
        due_time=now,
        create_time=now,
        job_revision=told.job_revision,
        schedule_revision=told.schedule_revision,
        # It waits for the tick, like a manual execution; the poll path is its net.
        phase=Phase.WAITING,
        wake_time=now,
        available_time=now,
        trace_parent=told.trace_parent,
        callback=replace(callback, execution_id=told.execution_id),
    )


def _of_job(job: Job) -> dict[str, Any]:
    definition = job.definition
    return {
        "job_id": job.job_id,
        "job_name": definition.name,
        "org_id": job.org_id,
        "project_id": definition.project_id,
    }


def _body(kind: str, time: datetime, data: dict[str, Any]) -> bytes:
    message = {"type": kind, "timestamp": _text(time), "data": data}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _text(instant: datetime | None) -> str | None:
    if instant is None:
        return None
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
