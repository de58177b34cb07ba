"""Puts together what the executor tells of itself: its metrics, and its traces where somebody collects them."""

from __future__ import annotations

from libs.common.clock_offset import OffsetEstimator
from libs.common.metrics import Metrics
from libs.common.process_metrics import ProcessMetrics
from libs.common.streams.redis_metrics import RedisMetrics
from libs.common.tracing import find_tracer
from services.executor.adapters.attempt_traces import AttemptTraces
from services.executor.adapters.metrics_observer import MetricsObserver

SERVICE = "executor"


class Signals:
    """Made first, since the edges report to it."""

    def __init__(self, estimator: OffsetEstimator) -> None:
        self.metrics = Metrics()
        self.process = ProcessMetrics(self.metrics, SERVICE)
        self.observer = MetricsObserver(self.metrics)
        self.redis = RedisMetrics(self.metrics)
        self.metrics.gauge(
            "clock_offset_seconds", "The scheduler's clock minus this process's.", ("service",), across="max"
        ).labels(SERVICE).set_function(lambda: estimator.raw_offset().total_seconds())
        tracer = find_tracer("punctual.executor")
        self.traces = None if tracer is None else AttemptTraces(tracer)
        """None: nobody collects traces, and nothing is spent on them."""
