"""What an execution is: one carrying-out of a job, and the only record that a fire was decided.

    READY ──► RUNNING ──► SUCCEEDED | FAILED | TIMED_OUT | RATE_LIMITED | UNKNOWN | CANCELLED
      ▲          │
      └──────────┘  retry (the attempt number grows) or deferral (it does not)
    READY ──► SKIPPED(reason) | CANCELLED

A final state never changes. The id of a scheduled execution is made of job id and fire time, so that materializing a
fire twice is one insert that fails: the database decides (promise P1).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from libs.common.instants import to_epoch_millis
from libs.common.value_type import value_type


class ExecutionState(enum.StrEnum):
    """Where an execution stands."""

    READY = "READY"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    RATE_LIMITED = "RATE_LIMITED"
    UNKNOWN = "UNKNOWN"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"

    @property
    def is_final(self) -> bool:
        """Whether nothing can change it any more."""
        return self not in {ExecutionState.READY, ExecutionState.RUNNING}

    @property
    def is_failure(self) -> bool:
        """Whether it counts towards the failed executions in a row."""
        return self in FAILURES


FAILURES = frozenset(
    {ExecutionState.FAILED, ExecutionState.TIMED_OUT, ExecutionState.RATE_LIMITED, ExecutionState.UNKNOWN}
)


class Cause(enum.StrEnum):
    """Why an execution exists. An automatic retry is an attempt, not a cause."""

    SCHEDULE = "SCHEDULE"
    MANUAL = "MANUAL"
    RETRY_REQUEST = "RETRY_REQUEST"
    BACKFILL = "BACKFILL"
    CALLBACK = "CALLBACK"


class Phase(enum.StrEnum):
    """Who acts next on an execution that is not final, when its `wake_time` comes.

    WAITING: the tick hands it to a dispatcher (retry, deferral). DISPATCHED: a dispatcher has it, and the poll path
    takes over when no executor began it by then. LEASED: the poll path takes over, for the lease ran out. SETTLING: the
    execution is final, and the settler repeats what its end means for the job, for a process died in between.
    """

    WAITING = "WAITING"
    DISPATCHED = "DISPATCHED"
    LEASED = "LEASED"
    SETTLING = "SETTLING"


class Outcome(enum.StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    RATE_LIMITED = "RATE_LIMITED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"
    UNKNOWN = "UNKNOWN"
    CHECK_FAILED = "CHECK_FAILED"


class DeliveryPath(enum.StrEnum):
    """How an execution came to an executor."""

    STREAM = "STREAM"
    POLL = "POLL"


@value_type
class RateLimitObservation:
    """What an answer told of the target's rate limit; -1 and None where it told nothing."""

    family: str
    remaining_requests: int = -1
    remaining_tokens: int = -1
    reset_time: datetime | None = None


@value_type
class Attempt:
    """One ended try of an execution."""

    number: int
    outcome: Outcome
    begin_time: datetime
    end_time: datetime
    executor_id: str
    fencing_token: int
    decision: str
    start_time: datetime | None = None
    status_code: int = 0
    error_reason: str = ""
    error_message: str = ""
    rate_limit: RateLimitObservation | None = None
    redirect_count: int = 0


@value_type
class ResponseHeader:
    """One header of an answer, secrets already masked."""

    name: str
    value: str


@value_type
class StoredResponse:
    """An answer as it is kept: inline in `body` (compressed as `encoding` says), or in the blob store under `blob_id`.

    `head` holds the first bytes of a blob, uncompressed, so that a read shows something without fetching it.
    """

    status_code: int
    headers: tuple[ResponseHeader, ...] = ()
    content_type: str = ""
    body: bytes = b""
    encoding: str = ""
    stored_size_bytes: int = 0
    total_size_bytes: int = -1
    truncated: bool = False
    sha256: bytes = b""
    blob_id: str = ""
    head: bytes = b""
    warning: str = ""


HEAD_BYTES = 1024
"""How much of an answer is kept where its body is not."""


def head_of(response: StoredResponse, warning: str) -> StoredResponse:
    """Return an answer without its body, but for the first bytes where they are at hand uncompressed.

    They are the stored answer then, as its description says, and what a download gives.
    """
    kept = (response.head or (b"" if response.encoding else response.body))[:HEAD_BYTES]
    return replace(
        response,
        body=kept,
        encoding="",
        blob_id="",
        head=b"",
        stored_size_bytes=len(kept),
        sha256=hashlib.sha256(kept).digest(),
        truncated=True,
        warning=warning,
    )


@value_type
class Callback:
    """What a callback sends and where, fixed when it was made, and what it tells of."""

    url: str
    body: bytes
    job_id: str
    """The job that it tells of, or whose execution."""
    execution_id: str = ""
    """The execution that it tells of; for a failed job the last one."""


@value_type
class Execution:
    """A stored execution. Lease fields mean something while RUNNING only; `fencing_token` only grows."""

    execution_id: str
    job_id: str
    org_id: str
    project_id: str
    partition: int
    cause: Cause
    fire_time: datetime
    due_time: datetime
    create_time: datetime
    job_revision: int
    schedule_revision: int
    exclusive: bool = False
    """Whether it takes part in the job's overlap policy."""
    state: ExecutionState = ExecutionState.READY
    state_reason: str = ""
    phase: Phase | None = None
    wake_time: datetime | None = None
    """When somebody has to look at it (see `Phase`)."""
    available_time: datetime | None = None
    """While READY: from here it may begin; the due time, or the end of a wait."""
    wait_reason: str = ""
    wait_host: str = ""
    """The host, with its port, that it waited for last; it waits for it only while `wait_reason` says so."""
    attempt_number: int = 0
    """Attempts that count so far, the present one included."""
    deferral_count: int = 0
    loss_count: int = 0
    """Leases that ran out; bounded, so that a poison execution ends."""
    fencing_token: int = 0
    executor_id: str = ""
    begin_request_id: str = ""
    begin_time: datetime | None = None
    reported_token: int = 0
    """The fencing token of the last applied report, to know a repetition of it."""
    cancel_reason: str = ""
    """Why a caller stops it; the executor of a running one hears of it at the next lease renewal."""
    cancel_actor: str = ""
    cancel_note: str = ""
    start_time: datetime | None = None
    lag_micros: int | None = None
    """The first start minus the due time, finer than stored instants are; only moves once, from None."""
    end_time: datetime | None = None
    expire_time: datetime | None = None
    attempts: Sequence[Attempt] = ()
    response: StoredResponse | None = None
    retried_execution_id: str = ""
    slot_time: datetime | None = None
    """For a repetition: the fire time of what it repeats, of which placeholders speak."""
    delivery_path: DeliveryPath | None = None
    trace_id: str = ""
    trace_parent: str = ""
    callback: Callback | None = None
    """For cause CALLBACK: its request. Such an execution has a job of its own, in no store (see `callback`)."""


def scheduled_execution_id(job_id: str, fire_time: datetime) -> str:
    """Return the id of the execution of a job's fire: the same for whoever materializes it, however often."""
    return f"{job_id}-{to_epoch_millis(fire_time)}"


def requested_execution_id(job_id: str, unique: str) -> str:
    """Return the id of an execution that a caller asked for; `unique` is a new id or a hash of the caller's key."""
    return f"{job_id}-m{unique}"


def job_id_of(execution_id: str) -> str:
    """Return the job's id inside an execution's id."""
    return execution_id.partition("-")[0]
