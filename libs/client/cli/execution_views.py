"""How executions and their attempts look."""

from __future__ import annotations

from punctual.v1.execution_pb2 import Attempt, Execution, Response
from punctual.v1.execution_service_pb2 import WatchExecutionsResponse

from libs.client.cli import wording
from libs.client.cli.output import Column, within


def _state(execution: Execution) -> str:
    return wording.short_name(Execution.State.Name(execution.state), "STATE_")


def _state_with_reason(execution: Execution) -> str:
    return f"{_state(execution)}  {execution.state_reason}".rstrip()


def _cause(execution: Execution) -> str:
    return wording.short_name(Execution.Cause.Name(execution.cause), "CAUSE_")


def _lag(execution: Execution) -> str:
    return wording.span(execution.lag) if execution.HasField("lag") else wording.NOTHING


def _answer(execution: Execution) -> str:
    return f"HTTP {execution.response.status_code}" if execution.response.status_code else wording.NOTHING


def _waiting(execution: Execution) -> str:
    if not execution.HasField("next_attempt_time"):
        return wording.NOTHING
    return f"until {wording.instant(execution.next_attempt_time)}  {execution.wait_reason}".rstrip()


def _attempt_line(attempt: Attempt) -> str:
    parts = [
        str(attempt.number),
        wording.instant(attempt.start_time),
        wording.short_name(Attempt.Outcome.Name(attempt.outcome), "OUTCOME_"),
        f"HTTP {attempt.status_code}" if attempt.status_code else "",
        attempt.error_reason,
        attempt.error_message,
        attempt.decision,
    ]
    return "  ".join(part for part in parts if part)


def _kept(response: Response) -> str:
    cut = "  (cut)" if response.truncated else ""
    return f"{response.stored_size_bytes} bytes  {response.content_type}{cut}".rstrip()


EXECUTION_ROW: list[Column[Execution]] = [
    Column("execution", lambda execution: execution.execution_id),
    Column("fire time", lambda execution: wording.instant(execution.fire_time)),
    Column("state", _state_with_reason),
    Column("cause", _cause),
    Column("lag", _lag),
    Column("attempts", lambda execution: str(len(execution.attempts))),
    Column("answer", _answer),
    Column("job", lambda execution: execution.job_id),
]

EXECUTION_CARD: list[Column[Execution]] = [
    Column("execution", lambda execution: execution.execution_id),
    Column("job", lambda execution: f"{execution.job_id}  revision {execution.job_revision}"),
    Column("project", lambda execution: execution.project_id),
    Column("state", _state_with_reason),
    Column("cause", _cause),
    Column("repeats", lambda execution: execution.retried_execution_id or wording.NOTHING),
    Column("tells of", lambda execution: execution.told_execution_id or wording.NOTHING),
    Column("fire time", lambda execution: wording.instant(execution.fire_time)),
    Column("due time", lambda execution: wording.instant(execution.due_time)),
    Column("start time", lambda execution: wording.instant(execution.start_time)),
    Column("end time", lambda execution: wording.instant(execution.end_time)),
    Column("lag", _lag),
    Column("waits", _waiting),
    Column("attempts", lambda execution: "\n".join(map(_attempt_line, execution.attempts)) or wording.NOTHING),
    Column("answer", _answer),
    Column("kept", lambda execution: _kept(execution.response)),
    Column("trace", lambda execution: execution.trace_id or wording.NOTHING),
]

CHANGE_ROW: list[Column[WatchExecutionsResponse]] = within(lambda change: change.execution, EXECUTION_ROW)

RESPONSE_CARD: list[Column[Response]] = [
    Column("status", lambda response: f"HTTP {response.status_code}"),
    Column("kept", _kept),
    Column("sha256", lambda response: response.sha256),
]
