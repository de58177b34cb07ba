"""Puts together what the scheduler tells of itself: metrics, traces, and the watchdog over the dispatch path."""

from __future__ import annotations

from contextlib import ExitStack

from libs.common.clock import Clock
from libs.common.metrics import Metrics, MetricsEndpoint
from libs.common.process_metrics import ProcessMetrics
from libs.common.rpc.call_metrics import CallMetrics
from libs.common.rpc.call_tracing import TraceInterceptor
from libs.common.tracing import find_tracer
from services.scheduler.adapters.metrics.database_metrics import DatabaseMetrics
from services.scheduler.adapters.metrics.execution_metrics import ExecutionMetrics
from services.scheduler.adapters.metrics.replica_metrics import watch_database
from services.scheduler.adapters.metrics.watchdog_metrics import WatchdogMetrics
from services.scheduler.adapters.mongo.clock_check import DatabaseCheck
from services.scheduler.adapters.mongo.partition_store import MongoPartitionStore
from services.scheduler.adapters.mongo.watched_records import MongoWatchedRecords
from services.scheduler.adapters.tick_traces import TickTraces
from services.scheduler.usecases.acquire_due import AcquireDue
from services.scheduler.usecases.watchdog import Watchdog

SERVICE = "scheduler"


class Signals:
    """Made first, since stores, servers and the database client all report to it."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._process = ProcessMetrics(self.metrics, SERVICE)
        self.executions = ExecutionMetrics(self.metrics)
        self.calls = CallMetrics(self.metrics)
        self.database = DatabaseMetrics(self.metrics)
        self._watchdog = WatchdogMetrics(self.metrics)
        tracer = find_tracer("punctual.scheduler")
        self.calls_traced = TraceInterceptor(tracer)
        self.ticks = None if tracer is None else TickTraces(tracer)
        """None: nobody collects traces, and nothing is spent on them."""

    def serve(self, address: str, check: DatabaseCheck, edges: ExitStack) -> MetricsEndpoint | None:
        """Serve the metrics and sample the event loop, until `edges` close."""
        watch_database(self.metrics, check)
        return self._process.serve(address, edges)

    def watchdog(self, acquire: AcquireDue, clock: Clock) -> Watchdog:
        """Return the watchdog; it runs once the documents are bound."""
        return Watchdog(MongoWatchedRecords(), MongoPartitionStore(), acquire, self._watchdog, clock)
