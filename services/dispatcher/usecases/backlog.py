"""Watches how full the stream is. Between two looks, what this dispatcher adds counts as not yet taken."""

from __future__ import annotations

import asyncio

from libs.common.clock import Clock
from libs.common.lifecycle import first_of
from services.dispatcher.usecases.ports import Stream

EMPTY_SECONDS = 1.0
"""How long a stream that was empty is believed to be, while this dispatcher adds nothing to it."""


class Backlog:
    """The stream's backlog as it was last seen, plus what was delivered since."""

    def __init__(self, stream: Stream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._entries: int | None = None
        self._look = asyncio.Event()

    @property
    def entries(self) -> int | None:
        """How many entries no executor has taken; None while Redis does not answer."""
        return self._entries

    async def look(self) -> None:
        """Ask the stream; if it was empty, wait first, for it still is: what other dispatchers add may show late."""
        if self._entries == 0:
            self._look.clear()
            await first_of(self._look.wait(), self._clock.sleep(EMPTY_SECONDS))
        try:
            self._entries = await self._stream.backlog()
        except Exception:
            self._entries = None
            raise

    def note_delivered(self, count: int) -> None:
        """Count entries that were just added."""
        if self._entries is not None:
            self._entries += count
            self.wake()

    def wake(self) -> None:
        """End the wait for the next look at once."""
        self._look.set()
