"""Bounds how long a server works on one call, whatever the caller asked for.

A call without a deadline gets the default; one with a longer deadline than the maximum is cut to it. Streams are left
alone: a watch lives as long as its caller, and an upload or download is bounded by its own progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc.aio import ServerInterceptor

from libs.common.errors import DeadlineExceededError
from libs.common.rpc.surround import Context, Handler, surround


class DeadlineInterceptor(ServerInterceptor):
    """Ends unary calls in time. Goes inside the ErrorInterceptor, which makes the status of what it raises."""

    def __init__(self, *, default_seconds: float, max_seconds: float) -> None:
        self._default = default_seconds
        self._max = max_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler with its time bounded, if it is unary."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.response_streaming:
            return handler  # type: ignore[no-any-return] # Any only because the stubs do not know its attributes
        return surround(handler, self._bounded)

    @asynccontextmanager
    async def _bounded(self, context: Context) -> AsyncIterator[None]:
        remaining = context.time_remaining()
        seconds = min(self._default if remaining is None else remaining, self._max)
        try:
            async with asyncio.timeout(seconds) as scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlineExceededError(
                "DEADLINE_EXCEEDED",
                f"not done within {seconds:.3g} s; whether it took effect is unknown",
                metadata={"seconds": f"{seconds:.3g}"},
            ) from error
