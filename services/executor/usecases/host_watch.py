"""Remembers what gates told of themselves, and reports what changed, so that people can read it at the scheduler.

Repeated rate-limit hits and opened circuits are also events for alerts, told by the executor whose attempt brought them
about, so that each is told once.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.common.clock import Clock
from libs.common.errors import ResourceExhaustedError, UnavailableError
from libs.common.logs import get_logger
from services.executor.domain.gate_values import SECOND, CircuitState, GateSummary, Note, TargetKey, to_micros
from services.executor.usecases.ports import AttemptService, ExecutorObserver, ObservedHost, SchedulerClock

MAX_HOSTS = 10_000
MAX_REPORTED = 1_000
"""Hosts in one report."""
TOLD_AGAIN_SECONDS = 3600.0
"""A host that is called without any change is reported this often, so that it stays listed."""
FORGOTTEN_AFTER = 600 * SECOND
"""How long after the end of its pause a circuit that is not closed still counts; the longest pause is half of it."""
ALERT_HITS = 3
"""Rate-limit hits in a row from which an event says so; then at each doubling."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a gate told of itself last."""

    summary: GateSummary
    time: datetime
    """When, by the scheduler's clock."""
    told: float
    """When it was queued to be reported last, on the monotonic clock."""


class HostWatch:
    """The latest summaries, and which of them the scheduler does not know."""

    def __init__(
        self, service: AttemptService, observer: ExecutorObserver, clock: Clock, scheduler_clock: SchedulerClock
    ) -> None:
        self._service = service
        self._observer = observer
        self._clock = clock
        self._scheduler_clock = scheduler_clock
        self._latest: OrderedDict[TargetKey, _Seen] = OrderedDict()
        self._changed: OrderedDict[TargetKey, None] = OrderedDict()

    def told(self, notes: Sequence[tuple[TargetKey, Note]], after: Sequence[GateSummary]) -> None:
        """Take in where gates stand after they heard of attempts' ends."""
        unchanged: set[TargetKey] = set()
        for (target, note), summary in zip(notes, after, strict=True):
            known = self._latest.get(target)
            if known is not None and (summary is known.summary or summary == known.summary):
                unchanged.add(target)
                continue
            before = known.summary if known else GateSummary()
            if note.feedback.limited and summary.hits > before.hits:
                self._limited(target, summary)
            if summary.circuit is not before.circuit:
                self._observer.circuit_changed(summary.circuit)
                level = log.warning if summary.circuit is CircuitState.OPEN else log.info
                level("target.circuit_changed", org_id=target.org_id, host=target.host, state=summary.circuit.value)
            self._see(target, summary)
        # One look for each of these gates, however many attempts ended there.
        for target in unchanged:
            if target in self._latest:
                self._see(target, self._latest[target].summary)

    def asked(self, targets: Sequence[TargetKey], after: Sequence[GateSummary]) -> None:
        """Take in where gates stand after they were asked."""
        # One look for each gate: what comes last is how it stands.
        for target, summary in dict(zip(targets, after, strict=True)).items():
            self._see(target, summary)

    def left_alone(self, now: int) -> Mapping[TargetKey, GateSummary]:
        """Return the gates that leave their hosts alone, as far as is known here."""
        return {target: seen.summary for target, seen in self._latest.items() if seen.summary.leaves_alone(now)}

    async def run_once(self) -> int:
        """Report what changed, a bounded number of hosts, and return how many; show how all of them stand.

        Raises:
            UnavailableError: the scheduler is away; they are reported later.
        """
        self._show(to_micros(self._scheduler_clock.now()))
        reported = list(self._changed)[:MAX_REPORTED]
        if not reported:
            return 0
        seen = [(target, self._latest[target]) for target in reported if target in self._latest]
        # As of when it was seen: another executor may have seen it change since, and have reported that already.
        hosts = [ObservedHost(target, latest.summary, latest.time) for target, latest in seen]
        for target in reported:
            del self._changed[target]
        try:
            await self._service.report_hosts(hosts)
        except (UnavailableError, ResourceExhaustedError):
            self._changed.update(dict.fromkeys(reported))
            raise
        return len(reported)

    def _see(self, target: TargetKey, summary: GateSummary) -> None:
        known = self._latest.get(target)
        now = self._clock.monotonic()
        told = now if known is None else known.told
        if known is None or known.summary != summary or now - told >= TOLD_AGAIN_SECONDS:
            self._changed[target] = None
            told = now
        self._latest[target] = _Seen(summary, self._scheduler_clock.now(), told)
        self._latest.move_to_end(target)
        if len(self._latest) > MAX_HOSTS:
            forgotten, _ = self._latest.popitem(last=False)
            self._changed.pop(forgotten, None)

    def _show(self, now: int) -> None:
        """Tell the observer how hosts stand; a circuit that nobody has tried for long says nothing any more."""
        circuits: Counter[CircuitState] = Counter()
        closed = 0
        for latest in self._latest.values():
            summary = latest.summary
            if summary.circuit is not CircuitState.CLOSED and summary.circuit_until + FORGOTTEN_AFTER > now:
                circuits[summary.circuit] += 1
            closed += summary.closed_until > now
        self._observer.hosts_seen(circuits, closed)

    def _limited(self, target: TargetKey, summary: GateSummary) -> None:
        self._observer.rate_limit_hit()
        doublings, rest = divmod(summary.hits, ALERT_HITS)
        if not rest and doublings & (doublings - 1) == 0:
            log.warning("target.rate_limited", org_id=target.org_id, host=target.host, hits_in_a_row=summary.hits)
