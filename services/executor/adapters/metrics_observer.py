"""Counts what the executor does, for Prometheus: lag, outcomes, refused reports, and how due work is fetched."""

from __future__ import annotations

from libs.common.metrics import Metrics
from services.executor.domain.delivery_mode import Mode
from services.executor.domain.gate_values import CircuitState
from services.executor.domain.report import Report

_LAG_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0)


class MetricsObserver:
    """Implements `ExecutorObserver`."""

    def __init__(self, metrics: Metrics) -> None:
        self._lag = metrics.histogram("lag_seconds", "Start of the POST minus due time.", buckets=_LAG_BUCKETS)
        self._attempts = metrics.counter("attempts_concluded", "Attempts by result.", ("result", "reason"))
        self._refused = metrics.counter("reports_refused", "Reports that came under an old lease.")
        self._mode = metrics.gauge("delivery_mode", "1 for how due work is fetched now, else 0.", ("mode",))
        self._hits = metrics.counter("target_rate_limit_hits", "Answers 429 from targets whose gate was open.")
        self._circuits = metrics.counter("target_circuit_changes", "Circuits that came into a state.", ("state",))
        self._shared = metrics.gauge("limits_shared", "1 while executors keep the limits of targets together, else 0.")
        self.mode_changed(Mode.STREAMS)
        self.limits_shared(shared=True)

    def started(self, lag_seconds: float) -> None:
        """Hear of a POST that starts this long after its due time."""
        self._lag.observe(lag_seconds)

    def concluded(self, report: Report) -> None:
        """Hear of an attempt's report."""
        self._attempts.labels(report.result.name, report.error_reason or report.defer_reason).inc()

    def report_refused(self) -> None:
        """Hear of a report that came under an old lease."""
        self._refused.inc()

    def mode_changed(self, mode: Mode) -> None:
        """Hear how due work is fetched from now on."""
        for each in Mode:
            self._mode.labels(each.value).set(each is mode)

    def rate_limit_hit(self) -> None:
        """Hear of a target that answered 429 while its gate was open."""
        self._hits.inc()

    def circuit_changed(self, state: CircuitState) -> None:
        """Hear of a circuit that this executor's report took to a state."""
        self._circuits.labels(state.value).inc()

    def limits_shared(self, *, shared: bool) -> None:
        """Hear whether limits are kept together."""
        self._shared.set(shared)
