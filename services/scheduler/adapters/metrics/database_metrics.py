"""Measures what MongoDB is asked, as the driver reports it: latency by command and outcome."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pymongo import monitoring

from libs.common.metrics import LATENCY_BUCKETS, OTHER, Metrics

COMMANDS = frozenset({"find", "insert", "update", "delete", "aggregate", "count", "getMore", "findAndModify", "hello"})
_MICROSECONDS = 1_000_000


class DatabaseMetrics(monitoring.CommandListener):
    """Listens to a client's commands; contents are neither read nor kept."""

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = metrics.histogram(
            "mongodb_operation_duration_seconds",
            "How long MongoDB took, by command and outcome; repetitions by the driver count each.",
            ("command", "outcome"),
            buckets=LATENCY_BUCKETS,
        )
        self._child = lru_cache(maxsize=64)(self._labelled)

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Hear of a command that was sent."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Hear of a command that was answered."""
        self._child(event.command_name, "ok").observe(event.duration_micros / _MICROSECONDS)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Hear of a command that failed, or whose answer did not come."""
        self._child(event.command_name, "error").observe(event.duration_micros / _MICROSECONDS)

    def _labelled(self, command: str, outcome: str) -> Any:
        return self._seconds.labels(command if command in COMMANDS else OTHER, outcome)
