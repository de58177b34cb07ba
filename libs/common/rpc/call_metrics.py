"""Counts the calls that a server answered: rates by method and code, latency by method."""

from __future__ import annotations

from functools import lru_cache

import grpc

from libs.common.metrics import LATENCY_BUCKETS, Metrics


class CallMetrics:
    """Is told of the end of each call by the error layer, whose handlers exist, so methods and codes are bounded."""

    def __init__(self, metrics: Metrics) -> None:
        self._handled = metrics.counter("rpc_handled", "Calls that ended, by method and status.", ("method", "code"))
        self._seconds = metrics.histogram(
            "rpc_duration_seconds",
            "How long calls took; AcquireDue and WatchExecutions wait on purpose.",
            ("method",),
            buckets=LATENCY_BUCKETS,
        )
        # The children of a label are found by a lock and a lookup of their own; here each is looked up once.
        self._count = lru_cache(maxsize=4096)(self._handled.labels)
        self._time = lru_cache(maxsize=512)(self._seconds.labels)

    def observe(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        """Count a call by its full method name, such as `/punctual.v1.JobService/GetJob`."""
        name = method.removeprefix("/")
        self._count(name, code.name).inc()
        self._time(name).observe(seconds)
