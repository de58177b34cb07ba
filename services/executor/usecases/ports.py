"""What the executor's use cases need of the world.

Ports raise `libs.common.errors`; `UnavailableError` means that repeating the same call is safe and may help, whether
or not the first one had an effect: every call here is idempotent by request id, lease or entry.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from libs.common.value_type import value_type
from services.executor.domain.answer import AnswerSource
from services.executor.domain.attempt import Grant, Lease, Refusal
from services.executor.domain.delivery_mode import Mode
from services.executor.domain.gate_values import Ask, CircuitState, GateSummary, Note, TargetKey, Verdict
from services.executor.domain.report import CallProgress, CallResult, Report

MAX_BATCH = 1_000
"""The most items that the scheduler takes in one call."""


@value_type
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


@value_type
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


@value_type
class ObservedHost:
    """What this executor saw of a gate last."""

    target: TargetKey
    summary: GateSummary
    observe_time: datetime


class AttemptService(Protocol):
    """The scheduler, as executors see it."""

    async def begin(self, request_id: str, execution_ids: Sequence[str]) -> GrantBatch:
        """Ask for attempts of delivered executions; the same request id returns the same grants."""
        ...

    async def poll(self, request_id: str, max_attempts: int, mode: PollMode, *, repetition: bool) -> GrantBatch:
        """Ask for attempts that no delivery reached; a repetition returns the grants of the call that it repeats."""
        ...

    async def extend(self, leases: Sequence[Lease]) -> Extensions:
        """Renew leases."""
        ...

    async def report(self, reports: Sequence[Report]) -> Sequence[ReportVerdict]:
        """Report outcomes; the verdicts come in the order of the reports."""
        ...

    async def report_hosts(self, hosts: Sequence[ObservedHost]) -> None:
        """Report what was seen of target hosts, for people to read."""
        ...

    async def upload(self, lease: Lease, encoding: str, source: AnswerSource) -> str:
        """Store a large answer and return its reference.

        Raises:
            UnimplementedError: the scheduler takes no uploads.
        """
        ...


@value_type
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


Release = Callable[[], Awaitable[bool]]
"""Returns at the instant from which a request may leave, and whether there was a wait for it."""


async def at_once() -> bool:
    """Let a request leave without a wait."""
    return False


class TargetCaller(Protocol):
    """Makes the POST. Every failure is a result; only cancellation is raised."""

    async def call(self, grant: Grant, progress: CallProgress, release: Release = at_once) -> CallResult:
        """Carry out the attempt's POST, keeping `progress` up to date, so that an abort knows what happened.

        All that comes before the request's first byte is done ahead; then `release` is awaited, once. A call that
        fails before that returns without it.
        """
        ...


@value_type
class GateAnswers:
    """What gates answered, in the order in which they were told and asked."""

    after_notes: tuple[GateSummary, ...]
    verdicts: tuple[Verdict, ...]
    after_asks: tuple[GateSummary, ...]


class SharedGates(Protocol):
    """The gates that all executors share. Every method takes a bounded time, whatever Redis does."""

    async def exchange(
        self, notes: Sequence[tuple[TargetKey, Note]], asks: Sequence[tuple[TargetKey, Ask]]
    ) -> GateAnswers:
        """Tell and ask in one round trip, the notes first.

        Raises:
            UnavailableError: as with the other methods; what was let through then is not known, and costs slots only.
        """
        ...

    async def renew(self, places: Mapping[TargetKey, Sequence[str]], now: int, lease_until: int) -> None:
        """Keep the places of attempts that go on."""
        ...

    async def restore(self, starts: Mapping[TargetKey, Mapping[str, Sequence[tuple[str, int]]]]) -> None:
        """Add starts that it does not know of: of each job by its id, and of the host under the empty id."""
        ...

    async def sign_of_life(self, executor_id: str, now: int) -> tuple[int, bool]:
        """Tell that an executor is there; return how many there are, and whether its last sign was known."""
        ...


class ExecutorObserver(Protocol):
    """Hears what is worth counting. Called from the hot path: counts, and never waits."""

    def started(self, lag_seconds: float, *, limited: bool) -> None:
        """Hear of a POST that starts this long after its due time, perhaps because a limit held it back."""
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

    def rate_limit_hit(self) -> None:
        """Hear of a target that answered 429 while its gate was open."""
        ...

    def circuit_changed(self, state: CircuitState) -> None:
        """Hear of a circuit that this executor's report took to a state."""
        ...

    def limits_shared(self, *, shared: bool) -> None:
        """Hear whether limits are kept together, or each executor keeps its share."""
        ...

    def lease_lost(self) -> None:
        """Hear of a held attempt whose lease is another's, or ran out."""
        ...

    def hosts_seen(self, circuits: Mapping[CircuitState, int], closed: int) -> None:
        """Hear how many hosts' circuits are in each state, and how many hosts asked to be left alone, as seen here."""
        ...
