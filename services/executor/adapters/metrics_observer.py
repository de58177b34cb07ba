"""Counts what the executor does, for Prometheus: lag, results, refused reports, limits, and how due work is fetched."""

from __future__ import annotations

from collections.abc import Mapping

from libs.common.metrics import OTHER, Metrics
from services.executor.domain.delivery_mode import Mode
from services.executor.domain.gate_values import CircuitState, DeferReason
from services.executor.domain.report import Report, Result

LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Seconds. The objective counts what started within the one of 1 s."""
REASONS = (
    "ANSWER_BROKEN_OFF",
    "BAD_ANSWER",
    "BAD_HEADER",
    "BAD_REDIRECT",
    "BAD_URL",
    "BLOCKED_ADDRESS",
    "CHECK_FAILED",
    "CONNECTION_LOST",
    "CONNECT_FAILED",
    "CONNECT_TIMED_OUT",
    "DNS_FAILED",
    "EXECUTOR_FAILED",
    "EXECUTOR_STOPPED",
    "FIRST_BYTE_TIMED_OUT",
    "TLS_FAILED",
    "TOO_MANY_REDIRECTS",
    "TOTAL_TIMED_OUT",
    *(reason.value for reason in DeferReason),
)


class MetricsObserver:
    """Implements `ExecutorObserver`."""

    def __init__(self, metrics: Metrics) -> None:
        lag = metrics.histogram(
            "lag_seconds",
            "Start of the POST minus the instant at which it was due; for a retry, the end of its wait. The label tells"
            " those that a limit of the target or the job held back.",
            ("limited",),
            buckets=LAG_BUCKETS,
        )
        self._lag, self._limited_lag = lag.labels("false"), lag.labels("true")
        self._concluded = metrics.counter(
            "attempts_concluded", "Attempts as the executor saw them end, by result and reason.", ("result", "reason")
        )
        self._children = {(result, ""): self._concluded.labels(result.name, "") for result in Result}
        self._refused = metrics.counter("reports_refused", "Reports that came under an old lease.")
        self._leases_lost = metrics.counter("leases_lost", "Held attempts whose lease ran out or is another's.")
        mode = metrics.gauge("delivery_mode", "1 for how due work is fetched now, else 0.", ("mode",))
        self._modes = {each: mode.labels(each.value) for each in Mode}
        self._redis_up = metrics.gauge(
            "redis_up", "1 while Redis answers this process, else 0.", ("service",), across="min"
        ).labels("executor")
        self._hits = metrics.counter("target_rate_limit_hits", "Answers 429 from targets whose gate was open.")
        changes = metrics.counter("target_circuit_changes", "Circuits that came into a state.", ("state",))
        self._changes = {state: changes.labels(state.value) for state in CircuitState}
        circuits = metrics.gauge(
            "target_circuits",
            "Hosts whose circuit is not closed, as executors see it.",
            ("state",),
            across="max",
        )
        self._circuits = {state: circuits.labels(state.value) for state in CircuitState if state.value != "CLOSED"}
        self._closed_hosts = metrics.gauge(
            "targets_rate_limited", "Target hosts that asked to be left alone for a while.", across="max"
        )
        self._shared = metrics.gauge(
            "limits_shared", "1 while executors keep the limits of targets together, else 0.", across="min"
        )
        self.mode_changed(Mode.STREAMS)
        self.limits_shared(shared=True)

    def started(self, lag_seconds: float, *, limited: bool) -> None:
        """Hear of a POST that starts this long after its due time."""
        (self._limited_lag if limited else self._lag).observe(lag_seconds)

    def concluded(self, report: Report) -> None:
        """Hear of an attempt's report."""
        key = (report.result, report.error_reason or report.defer_reason)
        child = self._children.get(key)
        if child is None:
            reason = key[1] if key[1] in REASONS else OTHER
            child = self._children[report.result, reason] = self._concluded.labels(report.result.name, reason)
        child.inc()

    def report_refused(self) -> None:
        """Hear of a report that came under an old lease."""
        self._refused.inc()

    def lease_lost(self) -> None:
        """Hear of a held attempt whose lease is another's, or ran out."""
        self._leases_lost.inc()

    def mode_changed(self, mode: Mode) -> None:
        """Hear how due work is fetched from now on."""
        for each, child in self._modes.items():
            child.set(each is mode)
        self._redis_up.set(mode is not Mode.POLLING)

    def rate_limit_hit(self) -> None:
        """Hear of a target that answered 429 while its gate was open."""
        self._hits.inc()

    def circuit_changed(self, state: CircuitState) -> None:
        """Hear of a circuit that this executor's report took to a state."""
        self._changes[state].inc()

    def hosts_seen(self, circuits: Mapping[CircuitState, int], closed: int) -> None:
        """Hear how hosts stand."""
        for state, child in self._circuits.items():
            child.set(circuits.get(state, 0))
        self._closed_hosts.set(closed)

    def limits_shared(self, *, shared: bool) -> None:
        """Hear whether limits are kept together."""
        self._shared.set(shared)
