"""Tracing: spans leave the process only where an exporter is configured by OpenTelemetry's own variables.

Without OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_TRACES_EXPORTER nothing is set up, the
SDK is not even imported, and every span is the API's no-op. Traces cross processes as W3C traceparent strings, which
ride in protos and stream entries; an unreadable one starts a new trace and is never an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def tracing_wanted() -> bool:
    """Return whether the environment asks for traces to be exported."""
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

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: f"punctual-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def tracer(name: str) -> Tracer:
    """Return the tracer of a module."""
    return trace.get_tracer(name)


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
