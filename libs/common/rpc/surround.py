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

Behavior = Callable[..., Any]
Wrap = Callable[[Behavior], Behavior]
MakeLayer = Callable[[Context], AbstractAsyncContextManager[object]]
MakeRequestLayer = Callable[[Any, Context], AbstractAsyncContextManager[object]]
Check = Callable[[Context], Awaitable[None]]
RequestCheck = Callable[[Any, Context], Awaitable[None]]


def surround(handler: Handler, make_layer: MakeLayer) -> Handler:
    """Return the handler with the layer around its behavior."""
    return _wrapped(
        handler,
        lambda behavior: _unary(behavior, lambda _request, context: make_layer(context)),
        lambda behavior: _streaming(behavior, make_layer),
    )


def surround_request(handler: Handler, make_layer: MakeRequestLayer) -> Handler:
    """Return the handler of a unary call with a layer around it that sees the request, too."""
    return _wrapped(handler, lambda behavior: _unary(behavior, make_layer))


def guard(handler: Handler, check: Check) -> Handler:
    """Return the handler behind a check: what it raises keeps the behavior from running."""
    return _wrapped(
        handler,
        lambda behavior: _guarded_unary(behavior, lambda _request, context: check(context)),
        lambda behavior: _guarded_streaming(behavior, check),
    )


def guard_request(handler: Handler, check: RequestCheck) -> Handler:
    """Return the handler of a unary call behind a check that sees the request, too."""
    return _wrapped(handler, lambda behavior: _guarded_unary(behavior, check))


def _wrapped(handler: Handler, unary: Wrap, streaming: Wrap | None = None) -> Handler:
    parts: Any = handler
    make, behavior = handler_parts(parts)
    wrap = streaming if parts.response_streaming else unary
    if wrap is None:
        raise TypeError("a layer that sees the request fits unary calls only")
    result: Handler = make(wrap(behavior), parts.request_deserializer, parts.response_serializer)
    return result


def _unary(behavior: Behavior, make_layer: MakeRequestLayer) -> Behavior:
    async def handle(request: Any, context: Context) -> Any:
        async with make_layer(request, context):
            return await behavior(request, context)

    return handle


def _streaming(behavior: Behavior, make_layer: MakeLayer) -> Behavior:
    async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
        async with make_layer(context):
            async for answer in _answers(behavior, request, context):
                yield answer

    return handle


def _guarded_unary(behavior: Behavior, check: RequestCheck) -> Behavior:
    async def handle(request: Any, context: Context) -> Any:
        await check(request, context)
        return await behavior(request, context)

    return handle


def _guarded_streaming(behavior: Behavior, check: Check) -> Behavior:
    async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
        await check(context)
        async for answer in _answers(behavior, request, context):
            yield answer

    return handle


async def _answers(behavior: Behavior, request: Any, context: Context) -> AsyncIterator[Any]:
    answers = behavior(request, context)
    if not hasattr(answers, "__aiter__"):
        await answers  # such a handler writes to the context itself
        return
    async for answer in answers:
        yield answer


def handler_parts(handler: Any) -> tuple[Callable[..., Any], Behavior]:
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
