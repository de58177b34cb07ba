"""Puts a layer around a handler: what a server interceptor does, written once for unary and streaming calls.

The layer is an async context manager made for each call. What it raises on entry keeps the behavior from running at
all; what the behavior raises passes through it on the way out. A layer that has work on entry only is a plain check,
which costs a call much less.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import grpc
from grpc.aio import ServicerContext

# Quoted: these are generic for the type checker only.
Context: TypeAlias = "ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

MakeLayer = Callable[[Context], AbstractAsyncContextManager[object]]
MakeRequestLayer = Callable[[Any, Context], AbstractAsyncContextManager[object]]
Check = Callable[[Context], Awaitable[None]]
RequestCheck = Callable[[Any, Context], Awaitable[None]]


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


def guard(handler: Handler, check: Check) -> Handler:
    """Return the handler behind a check: what it raises keeps the behavior from running."""
    parts: Any = handler
    make, behavior = handler_parts(parts)
    if parts.response_streaming:
        wrapped = _guarded_streaming(behavior, check)
    else:
        wrapped = _guarded_unary(behavior, lambda _request, context: check(context))
    result: Handler = make(wrapped, parts.request_deserializer, parts.response_serializer)
    return result


def guard_request(handler: Handler, check: RequestCheck) -> Handler:
    """Return the handler of a unary call behind a check that sees the request, too."""
    parts: Any = handler
    result: Handler = grpc.unary_unary_rpc_method_handler(
        _guarded_unary(parts.unary_unary, check), parts.request_deserializer, parts.response_serializer
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
            async for answer in _answers(behavior, request, context):
                yield answer

    return handle


def _guarded_unary(behavior: Callable[..., Any], check: RequestCheck) -> Callable[..., Any]:
    async def handle(request: Any, context: Context) -> Any:
        await check(request, context)
        return await behavior(request, context)

    return handle


def _guarded_streaming(behavior: Callable[..., Any], check: Check) -> Callable[..., Any]:
    async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
        await check(context)
        async for answer in _answers(behavior, request, context):
            yield answer

    return handle


async def _answers(behavior: Callable[..., Any], request: Any, context: Context) -> AsyncIterator[Any]:
    answers = behavior(request, context)
    if not hasattr(answers, "__aiter__"):
        await answers  # such a handler writes to the context itself
        return
    async for answer in answers:
        yield answer


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
