"""Puts a server's layers around a handler once for each method, not once for each call.

gRPC asks its interceptors for a handler at every call. Ours look at the method's name and nothing else then (what a
call brings with it is looked at by the handler that they return), so the answer for a method never changes and is kept.
Methods that do not exist are asked for each time: their names are the callers', and without number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

import grpc
from grpc.aio import ServerInterceptor

from libs.common.rpc.surround import Handler

# Quoted: generic for the type checker only.
_Find: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


class InterceptorChain(ServerInterceptor):
    """One interceptor made of several, outermost first, which must judge by the method's name only."""

    def __init__(self, interceptors: Sequence[ServerInterceptor]) -> None:
        self._interceptors = tuple(interceptors)
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: _Find, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the method's handler with all layers around it."""
        handler = self._handlers.get(handler_call_details.method)
        return handler or await self._assemble(continuation, handler_call_details)

    async def _assemble(self, continuation: _Find, details: grpc.HandlerCallDetails) -> Handler | None:
        exists = False

        async def find(details: grpc.HandlerCallDetails) -> Handler | None:
            nonlocal exists
            handler = await continuation(details)
            exists = handler is not None
            return handler

        proceed: _Find = find
        for interceptor in reversed(self._interceptors):
            proceed = partial(interceptor.intercept_service, proceed)
        handler = await proceed(details)
        if exists and handler is not None:
            self._handlers[details.method] = handler
        return handler
