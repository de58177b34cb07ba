"""States and causes as one types them, for flags that filter; completion and errors list them."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from punctual.v1.execution_pb2 import Execution
from punctual.v1.job_pb2 import Job


class JobState(enum.StrEnum):
    """Where a job stands."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    DELETED = "deleted"


class ExecutionState(enum.StrEnum):
    """Where an execution stands."""

    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    RATE_LIMITED = "rate-limited"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class ExecutionCause(enum.StrEnum):
    """Why an execution exists."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    RETRY_REQUEST = "retry-request"
    BACKFILL = "backfill"
    CALLBACK = "callback"


def job_states(choices: Iterable[JobState]) -> list[Job.State.ValueType]:
    """Return the API's values."""
    return [Job.State.Value(f"STATE_{choice.name}") for choice in choices]


def execution_states(choices: Iterable[ExecutionState]) -> list[Execution.State.ValueType]:
    """Return the API's values."""
    return [Execution.State.Value(f"STATE_{choice.name}") for choice in choices]


def execution_causes(choices: Iterable[ExecutionCause]) -> list[Execution.Cause.ValueType]:
    """Return the API's values."""
    return [Execution.Cause.Value(f"CAUSE_{choice.name}") for choice in choices]
