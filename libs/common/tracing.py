"""Tracing: spans leave the process only where an exporter is configured by OpenTelemetry's own variables.

Without OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_TRACES_EXPORTER, or with
OTEL_SDK_DISABLED, nothing is set up, the SDK is not even imported, and no tracer is called. Export is OTLP over gRPC.
Traces cross processes as W3C traceparent strings, which
ride in protos and stream entries; an unreadable one starts a new trace and is never an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, Tracer
from opentelemetry.util.types import AttributeValue

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_DISABLED = "OTEL_SDK_DISABLED"
_SERVICE_NAME = "OTEL_SERVICE_NAME"
_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def tracing_wanted() -> bool:
    """Return whether the environment asks for traces to be exported."""
    if os.environ.get(_DISABLED, "").strip().lower() == "true":
        return False
    exporter = os.environ.get(_EXPORTER, "")
    return exporter != "none" and bool(exporter or any(os.environ.get(name) for name in _ENDPOINTS))


def configure_tracing(service: str) -> Callable[[], None]:
    """Export spans by OTLP if the environment asks for it; return what flushes and stops the export."""
    if not tracing_wanted():
        return _nothing
    # Imported here, so that a process without tracing pays neither the time nor the memory of the SDK.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    named = {} if os.environ.get(_SERVICE_NAME) else {SERVICE_NAME: f"punctual-{service}"}
    # The sampler and the limits come from OTEL_TRACES_SAMPLER and its like, which the SDK reads by itself.
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def find_tracer(name: str) -> Tracer | None:
    """Return the tracer of a service; None where nobody collects traces, so that nothing is spent on them."""
    return trace.get_tracer(name) if tracing_wanted() else None


def record_span(
    tracer: Tracer,
    name: str,
    parent: Context,
    instants: tuple[int, int],
    attributes: Mapping[str, AttributeValue],
) -> None:
    """Record what is over already: a span between two instants of the wall clock, in nanoseconds since the epoch."""
    start, end = instants
    tracer.start_span(name, parent, start_time=start, attributes=attributes).end(end)


def trace_id_of(trace_parent: str) -> str:
    """Return the trace id inside a traceparent; empty when it is none."""
    match = _TRACE_PARENT.fullmatch(trace_parent)
    return match[1] if match else ""


def format_trace_parent(span: Span | None = None) -> str:
    """Return the W3C traceparent of the span, by default the current one; empty when there is no trace."""
    context = (span or trace.get_current_span()).get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parse_trace_parent(value: str) -> Context | None:
    """Return the context to start child spans in; None when the string is empty or not a traceparent."""
    match = _TRACE_PARENT.fullmatch(value)
    if match is None:
        return None
    trace_id, span_id, flags, _ = match.groups()
    remote = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return trace.set_span_in_context(NonRecordingSpan(remote)) if remote.is_valid else None


def _nothing() -> None:
    """Stop what was never started."""
