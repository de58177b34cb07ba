"""What is asked of a gate and what it answers. Instants are microseconds since the epoch, by the scheduler's clock.

Microseconds, because gates live in Redis as well: its sorted sets and scripts count in doubles, which hold such numbers
exactly, so that the same rule decides the same wherever it runs.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from libs.common.value_type import value_type

SECOND = 1_000_000
"""Microseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(instant: datetime) -> int:
    """Return an aware instant as microseconds since the epoch."""
    return (instant - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the instant, aware, UTC."""
    return _EPOCH + _MICROSECOND * micros


class TargetKey(NamedTuple):
    """Names a gate: what an org shares about a host, from one reset to the next. A tuple, since it is looked up by."""

    org_id: str
    host: str
    """With its port, such as `api.example.com:443`."""
    generation: int


class DeferReason(enum.StrEnum):
    """Why an attempt goes back unsent."""

    JOB_RATE_LIMIT = "JOB_RATE_LIMIT"
    TARGET_RATE_LIMIT = "TARGET_RATE_LIMIT"
    """The host's limit, or its own word: a 429, or headers that tell of nothing left."""
    TARGET_CONCURRENCY = "TARGET_CONCURRENCY"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    ORG_CONCURRENCY = "ORG_CONCURRENCY"
    """The org's share of an executor's request slots is used up; no gate says so."""


@value_type
class Ask:
    """Asks a gate to let one attempt start. Limits of 0 do not limit."""

    execution_id: str
    fencing_token: int
    job_id: str
    at: int
    """From when it could start: its due instant, or now."""
    now: int
    job_limit: int
    """Starts of the job in any window."""
    host_limit: int
    """Starts of the org at the host in any window."""
    concurrent_limit: int
    lease_until: int
    """Until when a taken place counts unless it is renewed."""
    turn: int = 0
    """What one place's turn takes, to stand in line by; 0: it will wait for a place here."""
    spread: int = 0
    """By chance, 0 to 999,999: keeps those that wait for one instant from coming back in step."""

    @property
    def member(self) -> str:
        """Return what names this attempt, and no other one of its execution."""
        return member_of(self.execution_id, self.fencing_token)


def member_of(execution_id: str, fencing_token: int) -> str:
    """Return what names one attempt among the starts and places of a gate."""
    return f"{execution_id}#{fencing_token}"


@value_type
class Admitted:
    """It may start from `slot` on, and no later than `start_by`: after that its slot no longer covers it."""

    slot: int
    start_by: int


@value_type
class Deferred:
    """It goes back unsent until `until`."""

    until: int
    reason: DeferReason


@value_type
class Busy:
    """All places are taken, and it said that it would wait."""


Verdict = Admitted | Deferred | Busy


@value_type
class Start:
    """A slot that was let through, as it is remembered."""

    member: str
    job_id: str
    slot: int
    job_limited: bool
    host_limited: bool


class Health(enum.Enum):
    """What an attempt's end says about its host; the values are those of the scripts."""

    FAILED = 0
    HEALTHY = 1
    UNKNOWN = -1
    """Nothing: aborted, or refused before the host was reached."""


@value_type
class Feedback:
    """What an attempt's end says about its host."""

    health: Health = Health.UNKNOWN
    limited: bool = False
    """It answered 429."""
    succeeded: bool = False
    """It answered 2xx, which ends a row of rate-limit hits."""
    close_until: int = 0
    """Until when it asked to be left alone; 0: it did not say."""


@value_type
class Note:
    """Tells a gate that an admitted attempt is over."""

    execution_id: str
    fencing_token: int
    job_id: str
    now: int
    started: bool
    """Its POST began; if not, its slot is given back."""
    feedback: Feedback = Feedback()

    @property
    def member(self) -> str:
        """Return what names the attempt."""
        return member_of(self.execution_id, self.fencing_token)


class CircuitState(enum.StrEnum):
    """Where a circuit stands."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@value_type
class GateSummary:
    """What people may want to know of a gate."""

    circuit: CircuitState = CircuitState.CLOSED
    circuit_until: int = 0
    """While OPEN: when one attempt is let through."""
    closed_until: int = 0
    """Until when the host asked to be left alone; past: it does not."""
    hits: int = 0
    """Rate-limit hits since the last success."""

    def leaves_alone(self, now: int) -> bool:
        """Whether nobody is let through for the host's sake: it asked for that, or its circuit is open."""
        return self.closed_until > now or (self.circuit is CircuitState.OPEN and self.circuit_until > now)


@value_type
class CircuitRules:
    """When a circuit opens, and for how long. Spans are microseconds."""

    min_calls: int = 20
    """Fewer calls in the last minute never open it."""
    failure_percent: int = 50
    open_micros: int = 15 * SECOND
    """Doubles each time that the attempt let through fails."""
    most_open_micros: int = 300 * SECOND


@value_type
class GateRules:
    """The rules of all gates; the same on all executors. Spans are microseconds."""

    window: int = 60 * SECOND
    """The minute of a limit "a minute"; shorter in tests."""
    circuit: CircuitRules = CircuitRules()

    @property
    def slack(self) -> int:
        """How much later than its slot a request may reach the target; a window is counted longer by it."""
        return max(self.window // 40, SECOND // 2)

    @property
    def counted_window(self) -> int:
        """The window that slots keep, so that what starts up to `slack` after its slot keeps the real one."""
        return self.window + self.slack

    @property
    def tolerance(self) -> int:
        """How much later than its slot an attempt may start; the rest of the slack is for the way to the target."""
        return self.slack // 2
