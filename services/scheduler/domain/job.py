"""What a job is: the caller's definition, and the scheduler's record of where it stands.

A definition is immutable; a change makes a new revision. Everything here is a value: nothing reads a clock.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import datetime, timedelta

from libs.common.value_type import value_type
from services.scheduler.domain.schedule import Schedule

PARTITION_COUNT = 256
"""How many partitions the jobs are spread over; a job never changes its partition."""

KEPT_STATE_CHANGES = 100
"""Changes of state that a job remembers; older ones are dropped."""


class JobState(enum.StrEnum):
    """Where a job stands. Only ACTIVE jobs fire."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    DELETED = "DELETED"


class OverlapPolicy(enum.StrEnum):
    """What happens to a fire while an earlier scheduled execution of the job is not final."""

    SKIP = "SKIP"
    QUEUE_ONE = "QUEUE_ONE"
    ALLOW = "ALLOW"


class CatchUpMode(enum.StrEnum):
    """Which fires run that came while nobody could run them."""

    LATEST = "LATEST"
    ALL = "ALL"
    NONE = "NONE"


class OnUnknownOutcome(enum.StrEnum):
    """What happens when a request may have been sent and got no answer."""

    RETRY = "RETRY"
    FAIL = "FAIL"


class BodyPreset(enum.StrEnum):
    """A ready-made request body for a known API."""

    OPENAI_CHAT = "OPENAI_CHAT"
    OPENAI_RESPONSES = "OPENAI_RESPONSES"
    ANTHROPIC_MESSAGES = "ANTHROPIC_MESSAGES"


@value_type
class Header:
    """One request header. A sensitive value is a secret: masked in every read, encrypted at rest.

    A secret that was read from the store is `sealed` and has no `value`: only a grant opens it, and a write stores it
    again as it is.
    """

    name: str
    value: str
    sensitive: bool = False
    sealed: str = ""


@value_type
class Body:
    """The shape of the request body: a preset with its model, or a JSON template; exactly one of the two is set."""

    preset: BodyPreset | None = None
    template: str = ""
    model: str = ""
    max_tokens: int = 0


@value_type
class Target:
    """What an attempt does: one POST. Without a body shape it sends `{"prompt": ...}`."""

    url: str
    prompt: str
    headers: tuple[Header, ...] = ()
    body: Body | None = None
    max_redirects: int = 5


@value_type
class RetryPolicy:
    """How failed attempts are repeated. `max_attempts` counts the first one."""

    max_attempts: int = 3
    initial_backoff: timedelta = timedelta(seconds=2)
    max_backoff: timedelta = timedelta(seconds=32)
    max_age: timedelta = timedelta(days=1)
    retry_conflict: bool = False


@value_type
class TimeoutPolicy:
    """How long one attempt may take. `first_byte` unset means as long as `total`."""

    total: timedelta = timedelta(seconds=30)
    connect: timedelta = timedelta(seconds=10)
    first_byte: timedelta | None = None


@value_type
class CatchUpPolicy:
    """What happens to missed fires: which run, how old they may be, and how many at most."""

    mode: CatchUpMode = CatchUpMode.LATEST
    window: timedelta = timedelta(days=1)
    max_fires: int = 100


@value_type
class RateLimitPolicy:
    """The job's own request rate."""

    max_requests_per_minute: int = 60


@value_type
class ResponseCheck:
    """One check on a successful answer; exactly one of the three forms is set."""

    json_path_exists: str = ""
    json_path_equals: str = ""
    json_value: str = ""
    min_size_bytes: int = 0


@value_type
class ResponsePolicy:
    """What counts as a good answer (no codes: 200 to 299) and what of it is kept."""

    success_codes: tuple[int, ...] = ()
    checks: tuple[ResponseCheck, ...] = ()
    max_size_bytes: int = 10_000_000
    store_full_response: bool = True


@value_type
class CallbackPolicy:
    """Who is told about the end of executions; nobody without a URL."""

    url: str = ""
    notify_failure: bool = True
    notify_success: bool = False


@value_type
class JobDefinition:
    """All that a caller writes. A change of any of it makes a new revision of the job."""

    name: str
    schedule: Schedule
    target: Target
    project_id: str = "default"
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    retry: RetryPolicy = RetryPolicy()
    timeout: TimeoutPolicy = TimeoutPolicy()
    overlap: OverlapPolicy = OverlapPolicy.SKIP
    catch_up: CatchUpPolicy = CatchUpPolicy()
    on_unknown_outcome: OnUnknownOutcome = OnUnknownOutcome.RETRY
    rate_limit: RateLimitPolicy = RateLimitPolicy()
    response: ResponsePolicy = ResponsePolicy()
    callback: CallbackPolicy = CallbackPolicy()
    max_consecutive_failures: int = 5


@value_type
class StateChange:
    """One change of a job's state. Kept with the job, so that an explanation can say who held it and why."""

    time: datetime
    state: JobState
    actor: str
    """The caller's subject, or `punctual` for the scheduler itself."""
    reason: str = ""
    note: str = ""


@value_type
class Job:
    """A stored job.

    `next_fire_time` is the cursor: every fire before it is decided, and it only moves forward, unless the schedule
    changes, which makes a new `schedule_revision`. `next_due_time` is that fire plus its jitter, what the tick asks
    for. Both are None when the job will not fire by itself.
    """

    job_id: str
    org_id: str
    definition: JobDefinition
    create_time: datetime
    update_time: datetime
    creator: str
    state: JobState = JobState.ACTIVE
    state_reason: str = ""
    state_note: str = ""
    state_time: datetime | None = None
    """When it came into its state; None for one that never changed it."""
    next_fire_time: datetime | None = None
    next_due_time: datetime | None = None
    revision: int = 1
    schedule_revision: int = 1
    schedule_time: datetime | None = None
    """When the present schedule took effect; fires after it belong to it."""
    delete_time: datetime | None = None
    purge_time: datetime | None = None
    consecutive_failures: int = 0
    definition_revision: int = 1
    """The revision that last changed the definition; later ones changed only the state."""
    state_changes: tuple[StateChange, ...] = ()
    """The latest changes of the state, oldest first; a new job is ACTIVE without one."""
    fingerprint: str = ""
    duplicate_until: datetime | None = None
    """Until when an equal submission counts as a duplicate of this job; None: never, or no more."""
    idempotency_key: str = ""
    content_digest: str = ""
    """What the idempotency key stood for at creation (see `fingerprint`); empty without a key."""
    tzdata_version: str = ""
    trace_parent: str = ""

    @property
    def partition(self) -> int:
        """The job's fixed partition, 0 to 255."""
        return partition_of(self.job_id)

    @property
    def etag(self) -> str:
        """The opaque form of the stored revision."""
        return f"r{self.revision}"


def with_state(job: Job, change: StateChange) -> Job:
    """Return the job in a new state, with the change on record."""
    return replace(
        job,
        state=change.state,
        state_reason=change.reason,
        state_note=change.note,
        state_time=change.time,
        state_changes=(*job.state_changes, change)[-KEPT_STATE_CHANGES:],
    )


def partition_of(job_id: str) -> int:
    """Return the fixed partition of a job: a hash, so that ids made at one moment spread."""
    return hashlib.blake2b(job_id.encode(), digest_size=1).digest()[0]
