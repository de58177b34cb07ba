"""Puts together what the dispatcher tells of itself: its metrics, and its traces where somebody collects them."""

from __future__ import annotations

from libs.common.metrics import Metrics
from libs.common.process_metrics import ProcessMetrics
from libs.common.streams.redis_metrics import RedisMetrics
from libs.common.tracing import find_tracer
from services.dispatcher.adapters.dispatch_metrics import DispatchMetrics
from services.dispatcher.adapters.dispatch_traces import DispatchTraces

SERVICE = "dispatcher"
LOOK_SECONDS = 5.0
"""How often the levels of the stream are looked at."""


class Signals:
    """Made first, since the edges report to it."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.process = ProcessMetrics(self.metrics, SERVICE)
        self.redis = RedisMetrics(self.metrics)
        self.dispatch = DispatchMetrics(self.metrics)
        tracer = find_tracer("punctual.dispatcher")
        self.traces = None if tracer is None else DispatchTraces(tracer)
        """None: nobody collects traces, and nothing is spent on them."""
