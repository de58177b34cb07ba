"""Watches how full the stream is. Between two looks, what this dispatcher adds counts as not yet taken.

While that is far from full nobody needs to know it exactly, and so it is rarely asked for.
"""

from __future__ import annotations

import asyncio

from libs.common.clock import Clock
from libs.common.lifecycle import first_of
from services.dispatcher.usecases.ports import Stream

FAR_SECONDS = 2.0
"""How long a stream that is far from full is believed to be so, whatever other dispatchers add to it."""


class Backlog:
    """The stream's backlog as it was last seen, plus what was delivered since."""

    def __init__(self, stream: Stream, clock: Clock, most: int) -> None:
        """Take the bound on the stream, of which a fifth is far from full."""
        self._stream = stream
        self._clock = clock
        self._near = most // 5
        self._entries: int | None = None
        self._look = asyncio.Event()

    @property
    def entries(self) -> int | None:
        """How many entries no executor has taken; None while Redis does not answer."""
        return self._entries

    async def look(self) -> None:
        """Ask the stream; while it is far from full, wait first, until it is not by what this dispatcher adds."""
        if self._entries is not None and self._entries <= self._near:
            self._look.clear()
            await first_of(self._look.wait(), self._clock.sleep(FAR_SECONDS))
        try:
            self._entries = await self._stream.backlog()
        except Exception:
            self._entries = None
            raise

    def note_delivered(self, count: int) -> None:
        """Count entries that were just added."""
        if self._entries is not None:
            self._entries += count
            if self._entries > self._near:
                self.wake()

    def wake(self) -> None:
        """End the wait for the next look at once."""
        self._look.set()
