"""Puts a layer around a handler: what a server interceptor does, written once for unary and streaming calls.

The layer is an async context manager made for each call. What it raises on entry keeps the behavior from running at
all; what the behavior raises passes through it on the way out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import grpc
from grpc.aio import ServicerContext

# Quoted: these are generic for the type checker only.
Context: TypeAlias = "ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

MakeLayer = Callable[[Context], AbstractAsyncContextManager[object]]
MakeRequestLayer = Callable[[Any, Context], AbstractAsyncContextManager[object]]


def surround(handler: Handler, make_layer: MakeLayer) -> Handler:
    """Return the handler with the layer around its behavior."""
    parts: Any = handler
    make, behavior = handler_parts(parts)
    if parts.response_streaming:
        wrapped = _streaming(behavior, make_layer)
    else:
        wrapped = _unary(behavior, lambda _request, context: make_layer(context))
    result: Handler = make(wrapped, parts.request_deserializer, parts.response_serializer)
    return result


def surround_request(handler: Handler, make_layer: MakeRequestLayer) -> Handler:
    """Return the handler of a unary call with a layer around it that sees the request, too."""
    parts: Any = handler
    result: Handler = grpc.unary_unary_rpc_method_handler(
        _unary(parts.unary_unary, make_layer), parts.request_deserializer, parts.response_serializer
    )
    return result


def _unary(behavior: Callable[..., Any], make_layer: MakeRequestLayer) -> Callable[..., Any]:
    async def handle(request: Any, context: Context) -> Any:
        async with make_layer(request, context):
            return await behavior(request, context)

    return handle


def _streaming(behavior: Callable[..., Any], make_layer: MakeLayer) -> Callable[..., Any]:
    async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
        async with make_layer(context):
            answers = behavior(request, context)
            if not hasattr(answers, "__aiter__"):
                await answers  # such a handler writes to the context itself
                return
            async for answer in answers:
                yield answer

    return handle


def handler_parts(handler: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what makes a handler of this kind, and the behavior inside this one."""
    match (bool(handler.request_streaming), bool(handler.response_streaming)):
        case (False, False):
            return grpc.unary_unary_rpc_method_handler, handler.unary_unary
        case (False, True):
            return grpc.unary_stream_rpc_method_handler, handler.unary_stream
        case (True, False):
            return grpc.stream_unary_rpc_method_handler, handler.stream_unary
        case _:
            return grpc.stream_stream_rpc_method_handler, handler.stream_stream
