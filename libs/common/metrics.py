"""The metrics of one process: a registry of its own, and the endpoint that Prometheus reads.

Metrics are made by the composition root and handed to those who count; nothing registers itself at import. The endpoint
runs in a thread of its own, so that a scrape is answered even while the event loop is busy.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

NAMESPACE = "punctual"


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


class Metrics:
    """Makes this process's metrics; every name begins with `punctual_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """Return a new counter; a name that exists already is a ValueError."""
        return Counter(name, documentation, labels, namespace=NAMESPACE, registry=self.registry)

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        """Return a new gauge; a name that exists already is a ValueError."""
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
        return Histogram(name, documentation, labels, namespace=NAMESPACE, registry=self.registry, buckets=buckets)

    def serve(self, address: str) -> MetricsEndpoint | None:
        """Serve /metrics at host:port (port 0 takes a free one), or nothing when the address is empty.

        Raises:
            OSError: the address is taken or not ours.
        """
        if not address:
            return None
        host, _, port = address.rpartition(":")
        server, thread = start_http_server(int(port), addr=host or "0.0.0.0", registry=self.registry)  # noqa: S104 - ":9090" asks for every interface
        return MetricsEndpoint(server, thread)
