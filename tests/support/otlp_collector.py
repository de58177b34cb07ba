"""A collector of traces inside the test: takes OTLP over gRPC and keeps every span."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from grpc import aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tools.devstack.waiting import wait_until


@dataclass(frozen=True)
class CollectedSpan:
    """One span as it was exported."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_nanos: int
    end_nanos: int
    attributes: dict[str, Any]
    links: tuple[str, ...]
    """Trace ids that it links."""


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Everything that was exported so far."""

    address: str = ""
    spans: list[CollectedSpan] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    """The requests as they came, to look for what must not be in them."""

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.raw.append(request.SerializeToString())
        for resource in request.resource_spans:
            attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_span(attributes["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str) -> list[CollectedSpan]:
        """Return the spans of a trace, earliest first."""
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.start_nanos)

    async def wait_for(self, names: set[str], chosen: Callable[[CollectedSpan], bool]) -> None:
        """Wait until spans of all these names have come among the chosen ones."""

        async def complete() -> bool:
            return names <= {span.name for span in self.spans if chosen(span)}

        await wait_until(complete, seconds=20, what=f"spans {sorted(names)}")


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    """Serve a collector on a free port."""
    collector = Collector()
    server = aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0)


def tree(spans: list[CollectedSpan]) -> str:
    """Return a trace for people: each span under its parent, when it began after the first, how long it took."""
    first = min(span.start_nanos for span in spans)
    known = {span.span_id for span in spans}
    lines: list[str] = []

    def add(parent: str, depth: int) -> None:
        for span in spans:
            if span.parent_id == parent or (depth == 0 and span.parent_id not in known):
                begin, length = (span.start_nanos - first) / 1e6, (span.end_nanos - span.start_nanos) / 1e6
                name = f"{'  ' * depth}{span.name}"
                lines.append(f"{name:<44} {span.service:<20} +{begin:9.2f} ms  {length:9.2f} ms")
                add(span.span_id, depth + 1)

    add("", 0)
    return "\n".join(lines)


def _span(service: str, span: Any) -> CollectedSpan:
    return CollectedSpan(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        {item.key: item.value.string_value or item.value.int_value for item in span.attributes},
        tuple(link.trace_id.hex() for link in span.links),
    )
