"""Fakes of the executor's ports: a scheduler that follows the protocol, and a target that answers when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from libs.common.errors import UnavailableError
from libs.common.testing.fake_clock import FakeClock
from services.executor.domain.answer import AnswerSource
from services.executor.domain.attempt import AttemptLimits, Grant, Lease, Refusal, ResponsePolicy, TargetRequest
from services.executor.domain.delivery_mode import Mode
from services.executor.domain.gate_values import (
    SECOND,
    Admitted,
    Ask,
    CircuitState,
    GateSummary,
    Note,
    TargetKey,
    Verdict,
)
from services.executor.domain.report import CallProgress, CallResult, Report, Result
from services.executor.usecases.ports import (
    Entry,
    Extensions,
    ExtensionVerdict,
    GateAnswers,
    GrantBatch,
    ObservedHost,
    PollMode,
    Release,
    ReportVerdict,
    at_once,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
LEASE_SECONDS = 30.0
ANSWERED = CallResult(Result.ANSWERED, 200)


def make_grant(execution_id: str = "e1", *, due: datetime = T0, token: int = 1) -> Grant:
    request = TargetRequest(
        url="https://target.example/",
        headers=(),
        body=b"{}",
        total_timeout=30.0,
        connect_timeout=10.0,
        first_byte_timeout=30.0,
        max_redirects=5,
        signing_secrets=(),
        response_policy=ResponsePolicy(frozenset(), (), 1_000_000, store_full_response=True),
    )
    lease = Lease(execution_id, token)
    return Grant(lease, f"job-{execution_id}", "org", 1, due, due, request, AttemptLimits(60, 60, 10, 1))


def make_entry(execution_id: str = "e1", *, due: datetime = T0, shard: int = 0, entry_id: str = "") -> Entry:
    return Entry(shard, entry_id or f"{execution_id}-0", execution_id, due)


@dataclass
class FakeAttemptService:
    """Grants what it was given, once; notes every call. `available = False` makes every method fail."""

    ready: dict[str, Grant] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    available: bool = True
    lease_seconds: float = LEASE_SECONDS
    more: bool = False
    begins: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    polls: list[tuple[str, int, PollMode]] = field(default_factory=list)
    repetitions: list[bool] = field(default_factory=list)
    hosts: list[list[ObservedHost]] = field(default_factory=list)
    extended: list[tuple[Lease, ...]] = field(default_factory=list)
    reports: list[list[Report]] = field(default_factory=list)
    uploads: list[tuple[Lease, str, bytes]] = field(default_factory=list)
    extension: Callable[[Lease], ExtensionVerdict] = lambda _: ExtensionVerdict.EXTENDED
    stale: set[str] = field(default_factory=set)
    report_error: Callable[[Sequence[Report]], Exception | None] = lambda _: None
    upload_error: Exception | None = None

    def give(self, *grants: Grant) -> None:
        self.ready |= {grant.lease.execution_id: grant for grant in grants}

    async def begin(self, request_id: str, execution_ids: Sequence[str]) -> GrantBatch:
        self.begins.append((request_id, tuple(execution_ids)))
        self._require()
        grants = tuple(self.ready.pop(item) for item in execution_ids if item in self.ready)
        granted = {grant.lease.execution_id for grant in grants}
        refused = [item for item in execution_ids if item not in granted]
        refusals = tuple(self.refusals.pop(item, Refusal(item, "NOT_READY")) for item in refused)
        return GrantBatch(grants, refusals, self.lease_seconds)

    async def poll(self, request_id: str, max_attempts: int, mode: PollMode, *, repetition: bool) -> GrantBatch:
        self.polls.append((request_id, max_attempts, mode))
        self.repetitions.append(repetition)
        self._require()
        grants = tuple(self.ready.pop(item) for item in list(self.ready)[:max_attempts])
        return GrantBatch(grants, (), self.lease_seconds, more=self.more)

    async def extend(self, leases: Sequence[Lease]) -> Extensions:
        self.extended.append(tuple(leases))
        self._require()
        return Extensions(tuple(self.extension(lease) for lease in leases), self.lease_seconds)

    async def report(self, reports: Sequence[Report]) -> Sequence[ReportVerdict]:
        self._require()
        if (error := self.report_error(reports)) is not None:
            raise error
        self.reports.append(list(reports))
        return [
            ReportVerdict.STALE if report.lease.execution_id in self.stale else ReportVerdict.ACCEPTED
            for report in reports
        ]

    async def upload(self, lease: Lease, encoding: str, source: AnswerSource) -> str:
        self._require()
        if self.upload_error is not None:
            raise self.upload_error
        self.uploads.append((lease, encoding, b"".join(source.chunks())))
        return f"blob-{lease.execution_id}"

    async def report_hosts(self, hosts: Sequence[ObservedHost]) -> None:
        self._require()
        self.hosts.append(list(hosts))

    @property
    def told(self) -> dict[str, Report]:
        """The last report of each execution."""
        return {report.lease.execution_id: report for batch in self.reports for report in batch}

    def _require(self) -> None:
        if not self.available:
            raise UnavailableError("UNAVAILABLE", "the scheduler is away")


@dataclass
class FakeDeliveries:
    """Entries that a test puts there. `available = False` makes every method fail."""

    clock: FakeClock
    waiting: list[Entry] = field(default_factory=list)
    acknowledged: list[Entry] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)
    reaped: int = 0
    available: bool = True

    async def read(self, shard: int, max_entries: int, block_seconds: float) -> Sequence[Entry]:
        self.reads.append(max_entries)
        self._require()
        if not self.waiting and block_seconds:
            await self.clock.sleep(block_seconds)
        self._require()
        taken, self.waiting = self.waiting[:max_entries], self.waiting[max_entries:]
        return taken

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        self._require()
        self.acknowledged += entries

    async def reap(self, shard: int) -> int:
        self._require()
        self.reaped += 1
        return 1

    def _require(self) -> None:
        if not self.available:
            raise UnavailableError("STREAM_UNAVAILABLE", "Redis is away")


@dataclass
class FakeTarget:
    """Answers at once, or holds every call until the test lets it go."""

    clock: FakeClock
    holds: bool = False
    answer: CallResult = ANSWERED
    started: list[tuple[str, datetime]] = field(default_factory=list)
    sends: bool = True
    connects: bool = True
    """False: it answers before the request could leave."""
    connecting_seconds: float = 0.0
    error: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, grant: Grant, progress: CallProgress, release: Release = at_once) -> CallResult:
        if not self.connects:
            return self.answer
        if self.connecting_seconds:
            await self.clock.sleep(self.connecting_seconds)
        await release()
        self.started.append((grant.lease.execution_id, self.clock.now()))
        progress.may_be_sent = self.sends
        if self.error is not None:
            raise self.error
        if self.holds:
            await self.gate.wait()
        return self.answer


class FakeAlarm:
    """Rings when a test says so, and shows what it is set to."""

    def __init__(self, on_ring: Callable[[], None]) -> None:
        self.ring = on_ring
        self.seconds: float | None = None
        self.settings = 0

    def set(self, seconds: float) -> None:
        self.seconds = seconds
        self.settings += 1

    def cancel(self) -> None:
        self.seconds = None


class ClockAlarm:
    """Rings by a fake clock, so that `advance` starts what comes due."""

    def __init__(self, clock: FakeClock, on_ring: Callable[[], None]) -> None:
        self._clock = clock
        self._on_ring = on_ring
        self._task: asyncio.Task[None] | None = None

    def set(self, seconds: float) -> None:
        self.cancel()
        self._task = asyncio.get_running_loop().create_task(self._ring_after(seconds))

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _ring_after(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._task = None
        self._on_ring()


@dataclass
class FakeGates:
    """Lets through at once, or answers as a test says; `available = False` makes every method fail."""

    verdict: Callable[[Ask], Verdict] = lambda ask: Admitted(ask.at, ask.at + 60 * SECOND)
    summary: GateSummary = field(default_factory=GateSummary)
    executors: int = 1
    known: bool = True
    available: bool = True
    noted: list[Note] = field(default_factory=list)
    asked: list[Ask] = field(default_factory=list)
    exchanges: list[tuple[int, int]] = field(default_factory=list)
    renewed: list[Mapping[TargetKey, Sequence[str]]] = field(default_factory=list)
    restored: list[Mapping[TargetKey, Mapping[str, Sequence[tuple[str, int]]]]] = field(default_factory=list)

    async def exchange(
        self, notes: Sequence[tuple[TargetKey, Note]], asks: Sequence[tuple[TargetKey, Ask]]
    ) -> GateAnswers:
        self._require()
        self.exchanges.append((len(notes), len(asks)))
        self.noted += [note for _, note in notes]
        self.asked += [ask for _, ask in asks]
        return GateAnswers(
            after_notes=(self.summary,) * len(notes),
            verdicts=tuple(self.verdict(ask) for _, ask in asks),
            after_asks=(self.summary,) * len(asks),
        )

    async def renew(self, places: Mapping[TargetKey, Sequence[str]], now: int, lease_until: int) -> None:
        self._require()
        self.renewed.append(places)

    async def restore(self, starts: Mapping[TargetKey, Mapping[str, Sequence[tuple[str, int]]]]) -> None:
        self._require()
        self.restored.append(starts)

    async def sign_of_life(self, executor_id: str, now: int) -> tuple[int, bool]:
        self._require()
        return self.executors, self.known

    def _require(self) -> None:
        if not self.available:
            raise UnavailableError("GATES_UNAVAILABLE", "Redis is away")


class RecordingObserver:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.results: list[Result] = []
        self.refused = 0
        self.modes: list[Mode] = []
        self.hits = 0
        self.circuits: list[CircuitState] = []
        self.shared: list[bool] = []
        self.leases_lost = 0
        self.hosts: tuple[dict[CircuitState, int], int] = ({}, 0)

    def started(self, lag_seconds: float, *, limited: bool) -> None:
        self.lags.append(lag_seconds)

    def concluded(self, report: Report) -> None:
        self.results.append(report.result)

    def report_refused(self) -> None:
        self.refused += 1

    def mode_changed(self, mode: Mode) -> None:
        self.modes.append(mode)

    def rate_limit_hit(self) -> None:
        self.hits += 1

    def circuit_changed(self, state: CircuitState) -> None:
        self.circuits.append(state)

    def limits_shared(self, *, shared: bool) -> None:
        self.shared.append(shared)

    def lease_lost(self) -> None:
        self.leases_lost += 1

    def hosts_seen(self, circuits: Mapping[CircuitState, int], closed: int) -> None:
        self.hosts = (dict(circuits), closed)


def due_in(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)
