"""The gates of one executor for the time in which it cannot ask the shared ones: each with its share of the limits.

The share of N executors is the limit divided by N, rounded down, so that all shares together never pass it. What the
others started before is not known here; so attempts at a limited host wait until one window is over, and then nothing
older counts. Hosts without a limit go on at once. A job's own limit is never rounded down to nothing: by chance its
executions meet now this executor, now that one, and it would stand still.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from services.executor.domain.gate_values import (
    SECOND,
    Ask,
    DeferReason,
    Deferred,
    GateRules,
    GateSummary,
    Note,
    Start,
    TargetKey,
    Verdict,
)
from services.executor.domain.target_gate import TargetGate

ASK_AGAIN = 5 * SECOND
"""The longest that an attempt is put back because the shared gates are away: they may be back soon."""


class OwnGates:
    """The gates of an executor that is on its own since an instant."""

    def __init__(self, rules: GateRules, executors: int, since: int) -> None:
        self._rules = rules
        self._executors = executors
        self._known_from = since + rules.counted_window
        """From here on, nothing counts that others started before."""
        self._gates: dict[TargetKey, TargetGate] = {}

    def remember(self, starts: Iterable[tuple[TargetKey, Start]]) -> None:
        """Take over this executor's earlier starts."""
        for target, start in starts:
            self._gate(target).remember(start)

    def take_over(self, left_alone: Mapping[TargetKey, GateSummary]) -> None:
        """Go on leaving hosts alone that the shared gates left alone."""
        for target, summary in left_alone.items():
            self._gate(target).take_over(summary)

    def renew(self, target: TargetKey, members: Iterable[str], lease_until: int) -> None:
        """Keep the places of attempts that go on, also of those that were let through before."""
        for member in members:
            self._gate(target).renew(member, lease_until)

    def note(self, target: TargetKey, note: Note) -> GateSummary:
        """Learn from an attempt's end; return where the gate stands."""
        gate = self._gate(target)
        gate.note(note)
        return gate.summary

    def admit(self, target: TargetKey, ask: Ask) -> tuple[Verdict, GateSummary]:
        """Let an attempt through within this executor's share; return the verdict and where the gate stands."""
        gate = self._gate(target)
        share = self._share(ask)
        return (share if isinstance(share, Deferred) else gate.admit(share)), gate.summary

    def _share(self, ask: Ask) -> Ask | Deferred:
        host, places = ask.host_limit // self._executors, ask.concurrent_limit // self._executors
        again = ask.now + ASK_AGAIN
        if ask.host_limit and (not host or ask.now < self._known_from):
            until = min(self._known_from, again) if ask.now < self._known_from else again
            return Deferred(until + ask.spread, DeferReason.TARGET_RATE_LIMIT)
        if ask.concurrent_limit and not places:
            return Deferred(again + ask.spread, DeferReason.TARGET_CONCURRENCY)
        job = max(ask.job_limit // self._executors, 1) if ask.job_limit else 0
        return replace(ask, host_limit=host, concurrent_limit=places, job_limit=job)

    def _gate(self, target: TargetKey) -> TargetGate:
        gate = self._gates.get(target)
        if gate is None:
            gate = self._gates[target] = TargetGate(self._rules)
        return gate
