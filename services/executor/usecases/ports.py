"""What the executor's use cases need of the world.

Ports raise `libs.common.errors`; `UnavailableError` means that repeating the same call is safe and may help, whether
or not the first one had an effect: every call here is idempotent by request id, lease or entry.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.executor.domain.answer import AnswerSource
from services.executor.domain.attempt import Grant, Lease, Refusal
from services.executor.domain.delivery_mode import Mode
from services.executor.domain.report import CallProgress, CallResult, Report

MAX_BATCH = 1_000
"""The most items that the scheduler takes in one call."""


@dataclass(frozen=True, slots=True)
class GrantBatch:
    """What the scheduler granted and refused in one call."""

    grants: tuple[Grant, ...]
    refusals: tuple[Refusal, ...]
    lease_seconds: float
    """How long each lease holds from the answer; counted from the question, it errs on the safe side."""
    more: bool = False
    """More could have been granted than were asked for."""


class ExtensionVerdict(enum.Enum):
    """What becomes of a held attempt."""

    EXTENDED = 1
    LOST = 2
    """Somebody else holds it or it is final: abort, report nothing."""
    CANCEL = 3
    """A caller asked for it: abort, report CANCELLED."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """What came of a renewal, in the order of the leases asked for."""

    verdicts: tuple[ExtensionVerdict, ...]
    lease_seconds: float


class ReportVerdict(enum.Enum):
    """Whether a report counted."""

    ACCEPTED = 1
    STALE = 2
    """The lease was no longer the execution's; nothing changed."""


class PollMode(enum.Enum):
    """Which executions a poll asks for."""

    OVERDUE = 1
    """What no delivery reached in time: lost entries, expired leases."""
    ALL = 2
    """All that is due soon: delivery while Redis is away."""


class AttemptService(Protocol):
    """The scheduler, as executors see it."""

    async def begin(self, request_id: str, execution_ids: Sequence[str]) -> GrantBatch:
        """Ask for attempts of delivered executions; the same request id returns the same grants."""
        ...

    async def poll(self, request_id: str, max_attempts: int, mode: PollMode) -> GrantBatch:
        """Ask for attempts that no delivery reached; the same request id returns the same grants."""
        ...

    async def extend(self, leases: Sequence[Lease]) -> Extensions:
        """Renew leases."""
        ...

    async def report(self, reports: Sequence[Report]) -> Sequence[ReportVerdict]:
        """Report outcomes; the verdicts come in the order of the reports."""
        ...

    async def upload(self, lease: Lease, encoding: str, source: AnswerSource) -> str:
        """Store a large answer and return its reference.

        Raises:
            UnimplementedError: the scheduler takes no uploads.
        """
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A delivered id on a stream: what to begin, when it is due, and by what it is acknowledged."""

    shard: int
    entry_id: str
    execution_id: str
    due_time: datetime


class Deliveries(Protocol):
    """The streams of due ids. They only hint: what is lost here comes by the poll path, what is doubled is refused."""

    async def read(self, shard: int, max_entries: int, block_seconds: float) -> Sequence[Entry]:
        """Return new entries of a shard, as many as there are up to the bound, or none after the wait."""
        ...

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Take entries off their streams, in one round trip for each shard."""
        ...

    async def reap(self, shard: int) -> int:
        """Take entries of dead consumers off a shard, and return how many."""
        ...


class SchedulerClock(Protocol):
    """The scheduler's clock as far as it is known here: by it an attempt is due, and by it lag is counted."""

    def now(self) -> datetime:
        """Return the corrected instant, aware, UTC."""
        ...


class Alarm(Protocol):
    """A timer that rings once for each setting; may ring a little early, never much late."""

    def set(self, seconds: float) -> None:
        """Ring after that many seconds, instead of any earlier setting."""
        ...

    def cancel(self) -> None:
        """Do not ring."""
        ...


AlarmFactory = Callable[[Callable[[], None]], Alarm]
"""Makes an alarm that calls the given function when it rings."""


class TargetCaller(Protocol):
    """Makes the POST. Every failure is a result; only cancellation is raised."""

    async def call(self, grant: Grant, progress: CallProgress) -> CallResult:
        """Carry out the attempt's POST, keeping `progress` up to date, so that an abort knows what happened."""
        ...


@dataclass(frozen=True, slots=True)
class Deferral:
    """Not now: the attempt goes back unsent until `until`, for a limit or an open circuit."""

    until: datetime
    reason: str


class Admission(Protocol):
    """Decides right before a POST whether the target can take it: rate limits, concurrency caps, circuit breakers.

    Whoever was admitted is noted exactly once when it is over, whatever came of it, so that a slot that admission took
    is given back.
    """

    async def admit(self, grant: Grant) -> Deferral | None:
        """Return None to let the attempt through, or until when it must wait, and why."""
        ...

    async def note(self, grant: Grant, call: CallResult | None) -> None:
        """Learn from an admitted attempt's end; None: it was aborted."""
        ...


class ExecutorObserver(Protocol):
    """Hears what is worth counting. Called from the hot path: counts, and never waits."""

    def started(self, lag_seconds: float) -> None:
        """Hear of a POST that starts this long after its due time."""
        ...

    def concluded(self, report: Report) -> None:
        """Hear of an attempt's report, before it is sent."""
        ...

    def report_refused(self) -> None:
        """Hear of a report that came under an old lease."""
        ...

    def mode_changed(self, mode: Mode) -> None:
        """Hear how due work is fetched from now on."""
        ...
