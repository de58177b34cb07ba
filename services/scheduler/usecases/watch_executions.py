"""Streams changes of executions to callers: bounded in number, and with a sign of life.

A watch ends when the server stops, and within seconds of the moment from which its caller would be let in no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from libs.common.clock import Clock
from libs.common.errors import ResourceExhaustedError, UnavailableError
from services.scheduler.domain.execution import Execution
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.ports.execution_feed import ExecutionFeed, WatchFilter

HEARTBEAT_SECONDS = 15.0
RETRY_SECONDS = 5.0
READMIT_SECONDS = 5.0
"""How often an open watch is judged anew; what a revoked key may still see is bounded by this."""


@dataclass(frozen=True, slots=True)
class WatchedChange:
    """A change, or without an execution a heartbeat; the token continues after it."""

    execution: Execution | None
    resume_token: str


class WatchExecutions:
    """Serves WatchExecutions."""

    def __init__(self, feed: ExecutionFeed, clock: Clock, stopping: asyncio.Event, max_watches: int) -> None:
        self._feed = feed
        self._clock = clock
        self._stopping = stopping
        self._max_watches = max_watches
        self._open = 0

    async def __call__(
        self, caller: Caller, where: WatchFilter, resume_token: str, readmit: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[WatchedChange]:
        """Yield a heartbeat as soon as the watch stands, then changes and heartbeats, until the caller or we stop.

        `readmit` raises once the caller would be let in no more, and so ends the watch.

        Raises:
            ResourceExhaustedError: too many watches are open at this replica.
            InvalidArgumentError, OutOfRangeError: the token is none, or too old.
            UnavailableError: this replica stops; another one continues after the last token.
        """
        if self._open >= self._max_watches:
            raise ResourceExhaustedError(
                "TOO_MANY_WATCHES",
                f"{self._max_watches} watches are open at this replica",
                retry_after_seconds=RETRY_SECONDS,
                metadata={"limit": str(self._max_watches)},
            )
        self._open += 1
        try:
            async with self._feed.open(caller.scope, where, resume_token) as changes:
                beat = self._clock.monotonic() - HEARTBEAT_SECONDS
                admitted = self._clock.monotonic()
                while not self._stopping.is_set():
                    if self._clock.monotonic() - admitted >= READMIT_SECONDS:
                        await readmit()
                        admitted = self._clock.monotonic()
                    if self._clock.monotonic() - beat >= HEARTBEAT_SECONDS:
                        beat = self._clock.monotonic()
                        yield WatchedChange(None, changes.resume_token)
                    execution = await changes.next()
                    if execution is not None:
                        yield WatchedChange(execution, changes.resume_token)
        finally:
            self._open -= 1
        raise UnavailableError(
            "SHUTTING_DOWN", "this replica stops: watch again, from the last token on", retry_after_seconds=0
        )
