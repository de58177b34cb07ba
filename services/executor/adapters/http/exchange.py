"""How far one call has come, and its timer: the first byte and the whole answer are phases of the same deadline.

The total counts from the start over all redirects, down to the last byte, so that an answer that trickles cannot
outlive it. The connect timeout is aiohttp's own, which arms it only when no pooled connection is free. The connector
finds the call it works for in a context variable: aiohttp has no other way that costs nothing.
"""

from __future__ import annotations

import asyncio
import enum
from contextvars import ContextVar

from services.executor.domain.report import CallProgress


class Phase(enum.Enum):
    """What a call waits for."""

    CONNECTING = enum.auto()
    """A connection for the current hop; nothing of its request has left."""
    SENT = enum.auto()
    """The head of the answer; the target may have the request."""
    ANSWERING = enum.auto()
    """The rest of the answer."""


class Exchange:
    """One call's state; `timer` runs to `deadline` and is moved only where a phase may not take that long."""

    def __init__(self, progress: CallProgress, timer: asyncio.Timeout, deadline: float, first_byte: float) -> None:
        self._progress = progress
        self._timer = timer
        self._deadline = deadline
        self._first_byte = first_byte
        self.host = ""
        """The host name being dialled, by which the address guard's allow-list may go."""
        self.phase = Phase.CONNECTING

    def dialling(self, host: str) -> None:
        """Begin a hop."""
        self.host = host
        self.phase = Phase.CONNECTING

    def connection_stands(self) -> None:
        """Note that the request leaves from now on; the head of the answer must come within the first-byte timeout."""
        self.phase = Phase.SENT
        self._progress.may_be_sent = True
        limit = asyncio.get_running_loop().time() + self._first_byte
        if limit < self._deadline:
            self._timer.reschedule(limit)

    def answering(self) -> None:
        """Note that the head of the answer came; only the total limits the rest."""
        self.phase = Phase.ANSWERING
        if self._timer.when() != self._deadline:
            self._timer.reschedule(self._deadline)


current_exchange: ContextVar[Exchange] = ContextVar("current_exchange")
"""The call that the running task makes."""
