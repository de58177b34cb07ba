"""The metrics of one process: a registry of its own, and the endpoint that Prometheus reads.

Metrics are made by the composition root and handed to those who count; nothing registers itself at import. The endpoint
runs in a thread of its own, so that a scrape is answered even while the event loop is busy.

Every metric says how its replicas are read together, which is what `docs/metrics.md` is generated from: what each
replica counts for itself is summed up; what each of them sees of the whole is the same everywhere, so the largest (or
least, where less is worse) counts. A label's values come from our own code, so that no caller can make more of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)

NAMESPACE = "punctual"
OTHER = "OTHER"
"""The label of a value that is none of the known ones."""
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; for calls and operations."""

Across = Literal["sum", "max", "min"]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as it is documented."""

    name: str
    """As Prometheus shows it, without the suffixes of a histogram."""
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    documentation: str
    across: Across
    """How the values of replicas become one."""


class MetricsEndpoint:
    """A running /metrics server."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening; returns when the thread has ended."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class BoundedCounter:
    """A counter over one label with known values; all of them exist from the start, so that a rate sees the first."""

    def __init__(self, counter: Counter, known: Iterable[str]) -> None:
        self._children = {value: counter.labels(value) for value in (*known, OTHER)}

    def add(self, value: str, amount: float = 1) -> None:
        """Count; what is not known counts as OTHER."""
        child = self._children.get(value)
        (self._children[OTHER] if child is None else child).inc(amount)


class Metrics:
    """Makes this process's metrics; every name begins with `punctual_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.families: list[Family] = []
        """All that were made, in order."""

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """Return a new counter, shown with the suffix `_total`; a name that exists already is a ValueError."""
        self._note(f"{name.removesuffix('_total')}_total", "counter", labels, documentation, "sum")
        return Counter(name, documentation, labels, namespace=NAMESPACE, registry=self.registry)

    def bounded_counter(self, name: str, documentation: str, label: str, known: Iterable[str]) -> BoundedCounter:
        """Return a new counter over one label; a name that exists already is a ValueError."""
        return BoundedCounter(self.counter(name, documentation, (label,)), known)

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = (), *, across: Across = "sum") -> Gauge:
        """Return a new gauge; a name that exists already is a ValueError."""
        self._note(name, "gauge", labels, documentation, across)
        return Gauge(name, documentation, labels, namespace=NAMESPACE, registry=self.registry)

    def histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS,
    ) -> Histogram:
        """Return a new histogram; a name that exists already is a ValueError."""
        self._note(name, "histogram", labels, documentation, "sum")
        return Histogram(name, documentation, labels, namespace=NAMESPACE, registry=self.registry, buckets=buckets)

    def serve(self, address: str) -> MetricsEndpoint | None:
        """Serve /metrics at host:port (port 0 takes a free one), or nothing when the address is empty.

        Raises:
            OSError: the address is taken or not ours.
        """
        if not address:
            return None
        # When a counter began is nothing that anybody asks for, and would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        host, _, port = address.rpartition(":")
        server, thread = start_http_server(int(port), addr=host or "0.0.0.0", registry=self.registry)  # noqa: S104 - ":9090" asks for every interface
        return MetricsEndpoint(server, thread)

    def _note(
        self,
        name: str,
        kind: Literal["counter", "gauge", "histogram"],
        labels: Sequence[str],
        documentation: str,
        across: Across,
    ) -> None:
        self.families.append(Family(f"{NAMESPACE}_{name}", kind, tuple(labels), documentation, across))
