"""A gate: everything that attempts of one org at one host share, and the order in which it is asked.

    circuit open? ──> asked to be left alone? ──> the job's limit ──> the host's limit ──> a free place? ──> go

Executors share gates in Redis, where the same rules run as scripts (see `adapters/redis_gates`); a contract test holds
the two against each other. This form decides while Redis is away, and is where the rules can be read and proven.

An attempt stands in one line at a time: it books where it meets the first limit, and meets the other one when its turn
has come. To book in both would let a slow job's far slots stand in the way of everybody else at the host.
"""

from __future__ import annotations

from services.executor.domain.circuit import Circuit
from services.executor.domain.gate_values import (
    SECOND,
    Admitted,
    Ask,
    Busy,
    CircuitState,
    DeferReason,
    Deferred,
    GateRules,
    GateSummary,
    Note,
    Start,
    Verdict,
)
from services.executor.domain.request_log import Plan, RequestLog, SlotSet

FIRST_BACKOFF = 1 * SECOND
MOST_BACKOFF = 32 * SECOND
"""After a 429 that does not say how long, doubling with each further one."""
LEAST_TURN = SECOND // 2
MOST_TURN = 300 * SECOND
"""How soon and how late a place's turn can be; the estimate behind it may be far off."""

MOST_SPREAD = 60 * SECOND


class TargetGate:
    """One gate. Not shared by itself: an executor's own, with its share of the limits."""

    def __init__(self, rules: GateRules) -> None:
        self._rules = rules
        self._circuit = Circuit(rules.circuit)
        self._jobs: dict[str, RequestLog] = {}
        self._host = RequestLog(rules)
        self._places = SlotSet()
        self._closed_until = 0
        self._hits = 0
        self._turn = 0

    def admit(self, ask: Ask) -> Verdict:
        """Let an attempt through, or say until when and why it waits."""
        refused = self._circuit.refuses_until(ask.now)
        if refused is not None:
            return Deferred(_spread(ask, refused), DeferReason.CIRCUIT_OPEN)
        if ask.now < self._closed_until:
            return Deferred(_spread(ask, self._closed_until), DeferReason.TARGET_RATE_LIMIT)
        job = self._jobs.get(ask.job_id) or RequestLog(self._rules)
        if ask.job_limit:
            self._jobs[ask.job_id] = job
        planned = self._plan(ask, job)
        if isinstance(planned, Deferred):
            return planned
        if ask.concurrent_limit and self._taken(ask.now) >= ask.concurrent_limit:
            return self._turned_away(ask)
        job_plan, host_plan = planned
        start_by = min(
            job.start(ask.job_limit, ask.execution_id, ask.member, job_plan.slot),
            self._host.start(ask.host_limit, ask.execution_id, ask.member, host_plan.slot),
        )
        self._places.put(ask.member, ask.lease_until)
        self._circuit.admitted(ask.member, ask.lease_until)
        return Admitted(max(job_plan.slot, host_plan.slot), start_by)

    def _plan(self, ask: Ask, job: RequestLog) -> tuple[Plan, Plan] | Deferred:
        """Find a slot within both limits, or book one within the limit that is in the way."""
        execution_id = ask.execution_id
        job_plan = job.plan(ask.job_limit, execution_id, ask.at, ask.now)
        if not job_plan.admitted:
            return self._book(job, self._host, execution_id, job_plan.slot, DeferReason.JOB_RATE_LIMIT)
        host_plan = self._host.plan(ask.host_limit, execution_id, max(ask.at, job_plan.slot), ask.now)
        if not host_plan.admitted:
            return self._book(self._host, job, execution_id, host_plan.slot, DeferReason.TARGET_RATE_LIMIT)
        # Where one slot is later than the other covers, the other one must fit there as well.
        slot = max(job_plan.slot, host_plan.slot)
        if ask.job_limit and slot > job_plan.slot + self._rules.tolerance:
            if not job.fits(slot, ask.job_limit):
                behind = job.end_of_line(execution_id, slot, ask.job_limit)
                return self._book(job, self._host, execution_id, behind, DeferReason.JOB_RATE_LIMIT)
            job_plan = Plan(slot, admitted=True)
        if ask.host_limit and slot > host_plan.slot + self._rules.tolerance:
            if not self._host.fits(slot, ask.host_limit):
                behind = self._host.end_of_line(execution_id, slot, ask.host_limit)
                return self._book(self._host, job, execution_id, behind, DeferReason.TARGET_RATE_LIMIT)
            host_plan = Plan(slot, admitted=True)
        return job_plan, host_plan

    @staticmethod
    def _book(log: RequestLog, other: RequestLog, execution_id: str, slot: int, reason: DeferReason) -> Deferred:
        log.line.put(execution_id, slot)
        other.line.remove(execution_id)
        return Deferred(slot, reason)

    def _taken(self, now: int) -> int:
        self._places.forget(now)
        return len(self._places)

    def _turned_away(self, ask: Ask) -> Busy | Deferred:
        """Let it wait here, or give it the next turn, by what a place's turn takes on average."""
        if not ask.turn:
            return Busy()
        self._turn = min(max(self._turn, ask.now) + ask.turn, ask.now + MOST_TURN)
        until = max(self._turn, ask.now + LEAST_TURN)
        return Deferred(until + ask.spread * (LEAST_TURN // 2) // SECOND, DeferReason.TARGET_CONCURRENCY)

    def note(self, note: Note) -> None:
        """Take back an attempt's place, and learn from its end."""
        self._places.remove(note.member)
        if not note.started:
            self._host.starts.remove(note.member)
            if note.job_id in self._jobs:
                self._jobs[note.job_id].starts.remove(note.member)
        feedback, now = note.feedback, note.now
        self._circuit.note(note.member, feedback.health, now)
        if feedback.limited:
            # Answers that come while it is closed were asked for before: one episode, one hit.
            if now >= self._closed_until:
                self._hits += 1
            backoff = min(FIRST_BACKOFF * 2 ** min(max(self._hits - 1, 0), 10), MOST_BACKOFF)
            self._closed_until = max(self._closed_until, feedback.close_until or now + backoff)
            return
        if feedback.succeeded:
            self._hits = 0
        self._closed_until = max(self._closed_until, feedback.close_until)

    def renew(self, member: str, lease_until: int) -> None:
        """Keep an attempt's place."""
        self._places.put(member, lease_until)
        self._circuit.renewed(member, lease_until)

    def remember(self, start: Start) -> None:
        """Take over a start that was let through elsewhere, so that it counts here."""
        if start.job_limited:
            log = self._jobs.setdefault(start.job_id, RequestLog(self._rules))
            log.starts.put(start.member, start.slot)
        if start.host_limited:
            self._host.starts.put(start.member, start.slot)

    def take_over(self, summary: GateSummary) -> None:
        """Take over that the host is left alone, as a gate elsewhere told."""
        self._closed_until, self._hits = summary.closed_until, summary.hits
        if summary.circuit is CircuitState.OPEN:
            self._circuit.opened(summary.circuit_until)

    @property
    def summary(self) -> GateSummary:
        """Return where it stands."""
        return GateSummary(self._circuit.state, self._circuit.until, self._closed_until, self._hits)


def _spread(ask: Ask, until: int) -> int:
    """Return an instant after `until`, at most as long after it as it is away, so that not all come at once."""
    return until + min(max(until - ask.now, SECOND), MOST_SPREAD) * ask.spread // SECOND
