"""Decides when a failing host is left alone, and when it is tried again: the circuit breaker of one gate.

    CLOSED ── too many failures among enough calls of the last minute ──> OPEN ── its time is over ──> HALF_OPEN
       ^────────────── the one attempt let through is answered ───────────────────────────────────────────┘
                       OPEN <── it fails: twice as long as before, up to a bound ─────────────────────────┘

Calls that end after the circuit opened were begun before it, and say nothing new. While half open, exactly one attempt
is under way; if its executor dies, its lease runs out and another one is let through.
"""

from __future__ import annotations

from services.executor.domain.gate_values import SECOND, CircuitRules, CircuitState, Health

BUCKET = 10 * SECOND
BUCKETS = 6
"""Calls are counted in a ring of buckets that together cover the last minute."""
RECHECK = 2 * SECOND
"""When others ask again while one attempt is finding out."""


class Circuit:
    """One circuit. Instants are microseconds."""

    def __init__(self, rules: CircuitRules) -> None:
        self._rules = rules
        self._ring: list[tuple[int, int, int]] = [(0, 0, 0)] * BUCKETS
        """Each the number of its bucket, the calls and the failures in it."""
        self.state = CircuitState.CLOSED
        self.until = 0
        self._trips = 0
        self._probe = ""
        self._probe_until = 0

    def refuses_until(self, now: int) -> int | None:
        """Return when to ask again, or None if an attempt may go."""
        if self.state is CircuitState.OPEN:
            if now < self.until:
                return self.until
            self.state, self._probe = CircuitState.HALF_OPEN, ""
        if self.state is CircuitState.HALF_OPEN and self._probe and now < self._probe_until:
            return now + RECHECK
        return None

    def admitted(self, member: str, lease_until: int) -> None:
        """Note who was let through; while half open it is the one that finds out."""
        if self.state is CircuitState.HALF_OPEN:
            self._probe, self._probe_until = member, lease_until

    def renewed(self, member: str, lease_until: int) -> None:
        """Note that an attempt goes on."""
        if member == self._probe:
            self._probe_until = lease_until

    def opened(self, until: int) -> None:
        """Take over that it opened elsewhere."""
        self.state, self.until = CircuitState.OPEN, until

    def note(self, member: str, health: Health, now: int) -> None:
        """Learn from an attempt's end."""
        match self.state:
            case CircuitState.CLOSED if health is not Health.UNKNOWN:
                self._count(health, now)
            case CircuitState.HALF_OPEN if member == self._probe:
                self._probe = ""
                if health is Health.HEALTHY:
                    self.state, self._trips, self.until = CircuitState.CLOSED, 0, 0
                    self._ring = [(0, 0, 0)] * BUCKETS
                elif health is Health.FAILED:
                    self._open(now)

    def _count(self, health: Health, now: int) -> None:
        number = now // BUCKET
        place = number % BUCKETS
        at, calls, failures = self._ring[place]
        if at != number:
            calls, failures = 0, 0
        self._ring[place] = (number, calls + 1, failures + (health is Health.FAILED))
        recent = [bucket for bucket in self._ring if bucket[0] > number - BUCKETS]
        calls, failures = sum(bucket[1] for bucket in recent), sum(bucket[2] for bucket in recent)
        if calls >= self._rules.min_calls and failures * 100 >= calls * self._rules.failure_percent:
            self._open(now)

    def _open(self, now: int) -> None:
        span = min(self._rules.open_micros * 2**self._trips, self._rules.most_open_micros)
        self.state, self.until = CircuitState.OPEN, now + span
        # Bounded, so that the doubling is a number that a script counts exactly, too.
        self._trips = min(self._trips + 1, 20)
