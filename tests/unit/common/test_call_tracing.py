"""A call that came with a traceparent belongs to its caller's trace, also where nothing is recorded."""

from __future__ import annotations

from typing import Any, cast

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libs.common.logs import get_bound
from libs.common.rpc.call_tracing import TraceInterceptor
from libs.common.tracing import format_trace_parent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Context:
    def __init__(self, **metadata: str) -> None:
        self._metadata = tuple(metadata.items())

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


async def called(interceptor: TraceInterceptor, context: Context, *, fail: bool = False) -> tuple[str, object]:
    """Call through the layer; return the traceparent and the bound trace id that the handler sees."""

    async def handle(_request: object, _context: object) -> tuple[str, object]:
        if fail:
            raise ValueError("secret")
        return format_trace_parent(), get_bound("trace_id")

    async def proceed(_details: Any) -> Any:
        return cast("Any", grpc).unary_unary_rpc_method_handler(handle)

    details = cast("Any", type("Details", (), {"method": "/punctual.v1.JobService/GetJob"}))
    handler = cast("Any", await interceptor.intercept_service(proceed, details))
    result: tuple[str, object] = await handler.unary_unary(None, context)
    return result


async def test_without_a_collector_the_callers_trace_is_handed_on() -> None:
    layer = TraceInterceptor(None)
    assert await called(layer, Context(traceparent=PARENT)) == (PARENT, None)
    assert await called(layer, Context()) == ("", None)
    assert format_trace_parent() == ""


async def test_with_a_collector_each_call_is_a_span_that_carries_no_exception() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    layer = TraceInterceptor(provider.get_tracer("test"))
    seen, trace_id = await called(layer, Context(traceparent=PARENT))
    with pytest.raises(ValueError, match="secret"):
        await called(layer, Context(traceparent=PARENT), fail=True)
    answered, failed = exporter.get_finished_spans()
    assert (answered.name, trace_id) == ("punctual.v1.JobService/GetJob", TRACE)
    assert answered.context is not None
    assert seen == f"00-{TRACE}-{answered.context.span_id:016x}-01"
    assert (answered.status.is_ok, failed.status.is_ok, failed.events) == (True, False, ())
