"""What every process tells of itself: its version, its memory, and how long its event loop keeps callers waiting.

Beside them stand the `process_*` metrics of the Prometheus client (CPU, open files, start time), which dashboards know.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from importlib.metadata import version
from pathlib import Path

from prometheus_client import Histogram, ProcessCollector

from libs.common.metrics import Metrics, MetricsEndpoint

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")
_PROBE_SECONDS = 1.0
_DELAY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ProcessMetrics:
    """The metrics that all services share, each under its own name in the label `service`."""

    def __init__(self, metrics: Metrics, service: str) -> None:
        self._metrics = metrics
        ProcessCollector(registry=metrics.registry)
        metrics.gauge("build_info", "1; the labels say what runs.", ("service", "version", "python_version")).labels(
            service, version("punctual"), platform.python_version()
        ).set(1)
        metrics.gauge("process_resident_memory_bytes", "Resident memory of the process.", ("service",)).labels(
            service
        ).set_function(resident_memory_bytes)
        self._delay = metrics.histogram(
            "event_loop_delay_seconds",
            "How much later than asked for the event loop called back, sampled once a second.",
            ("service",),
            buckets=_DELAY_BUCKETS,
        ).labels(service)

    def serve(self, address: str, edges: ExitStack | AsyncExitStack) -> MetricsEndpoint | None:
        """Serve all metrics and sample the event loop, until `edges` close."""
        edges.callback(self.watch_loop())
        endpoint = self._metrics.serve(address)
        if endpoint is not None:
            edges.callback(endpoint.close)
        return endpoint

    def watch_loop(self) -> Callable[[], None]:
        """Sample the running event loop from now on; return what ends it."""
        return _LoopProbe(self._delay, asyncio.get_running_loop()).stop


class _LoopProbe:
    """A timer that sets itself anew: no task, hence no cost but one call a second."""

    def __init__(self, delay: Histogram, loop: asyncio.AbstractEventLoop) -> None:
        self._delay = delay
        self._loop = loop
        self._set()

    def stop(self) -> None:
        """Ring no more."""
        self._timer.cancel()

    def _set(self) -> None:
        self._due = self._loop.time() + _PROBE_SECONDS
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._delay.observe(max(self._loop.time() - self._due, 0.0))
        self._set()


def resident_memory_bytes() -> float:
    """Return the resident memory of this process; 0 where the system does not tell."""
    try:
        return float(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0.0
