"""The changes of executions that go to the store in batches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.common.value_type import value_type
from services.scheduler.domain.execution import (
    Attempt,
    Cause,
    DeliveryPath,
    Execution,
    ExecutionState,
    StoredResponse,
)


@dataclass(frozen=True, slots=True)
class Lease:
    """The common part of a batch of grants."""

    request_id: str
    executor_id: str
    begin_time: datetime
    expire_time: datetime
    path: DeliveryPath


@value_type
class GrantWrite:
    """Grants one execution as it was read; a lost lease goes on record."""

    execution: Execution
    job_revision: int
    lost_attempt: Attempt | None = None


@dataclass(frozen=True, slots=True)
class GrantResult:
    """Which grants were written, and which met another execution of their job in the overlap slot."""

    granted: frozenset[str]
    overlapping: frozenset[str]


@value_type
class FinishWrite:
    """Ends an execution: reported under a lease (`fencing_token`), or READY and never to run (token as read)."""

    execution_id: str
    fencing_token: int
    expected: ExecutionState
    state: ExecutionState
    reason: str
    end_time: datetime
    settle: bool
    attempt: Attempt | None = None
    response: StoredResponse | None = None
    lag_micros: int | None = None
    """Set by the first attempt that started."""
    trace_id: str = ""
    is_report: bool = False
    """Whether a report of the lease's holder says so, which a repetition of it is recognized by."""
    lease_lost: bool = False
    """Whether it ends a lost lease: it counts only if that has run out by `end_time`, for its holder may renew it."""
    cause: Cause = Cause.SCHEDULE
    """The execution's, to count its end by."""


@value_type
class WaitWrite:
    """Puts a RUNNING execution back to READY until an instant: a retry when it carries an attempt, else a deferral."""

    execution_id: str
    fencing_token: int
    available_time: datetime
    reason: str = ""
    attempt: Attempt | None = None
    response: StoredResponse | None = None
    lag_micros: int | None = None
    """Set by the first attempt that started."""
    trace_id: str = ""
    wait_host: str = ""
    """The host, with its port, that it waits for; a reset of the host wakes it."""
    released: bool = False
    """Handed back by a draining executor: neither a retry nor a deferral in the books."""
