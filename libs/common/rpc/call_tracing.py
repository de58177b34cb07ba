"""Lets a call that came with a traceparent be part of its caller's trace, and makes a span of each call where wanted.

Without a collector nothing is recorded: then the caller's trace is only handed on to what the call stores, and a call
without a traceparent costs one look at its metadata. Streams of answers are not traced; they live for hours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any

import grpc
from grpc.aio import ServerInterceptor
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from libs.common.logs import bound
from libs.common.rpc.surround import Context, Handler, surround
from libs.common.tracing import parse_trace_parent

TRACE_PARENT_KEY = "traceparent"


class TraceInterceptor(ServerInterceptor):
    """The outermost layer of a server whose callers' traces matter; without a tracer it records nothing."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler with this layer around it."""
        handler = await continuation(handler_call_details)
        parts: Any = handler
        if handler is None or parts.response_streaming:
            return handler
        method = handler_call_details.method.removeprefix("/")
        return surround(handler, lambda context: _TracedCall(self._tracer, method, context))


class _TracedCall(AbstractAsyncContextManager[None]):
    """One call in progress."""

    def __init__(self, tracer: Tracer | None, method: str, context: Context) -> None:
        self._tracer = tracer
        self._method = method
        self._parent = _parent(context)
        self._stack = ExitStack()

    async def __aenter__(self) -> None:
        if self._tracer is not None:
            service, _, name = self._method.partition("/")
            attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
            span = self._stack.enter_context(
                self._tracer.start_as_current_span(
                    self._method,
                    self._parent,
                    kind=SpanKind.SERVER,
                    attributes=attributes,
                    # The error layer decides what may be told of an exception, and this is outside of it.
                    record_exception=False,
                    set_status_on_exception=False,
                )
            )
            self._stack.enter_context(bound(trace_id=f"{span.get_span_context().trace_id:032x}"))
        elif self._parent is not None:
            self._stack.callback(contexts.detach, contexts.attach(self._parent))

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if self._tracer is not None and error is not None:
            trace.get_current_span().set_status(Status(StatusCode.ERROR))
        self._stack.close()


def _parent(context: Context) -> contexts.Context | None:
    for key, value in context.invocation_metadata() or ():
        if key == TRACE_PARENT_KEY and isinstance(value, str):
            return parse_trace_parent(value)
    return None
