"""Watches how full the stream is. Between two looks, what this dispatcher adds counts as not yet taken."""

from __future__ import annotations

from services.dispatcher.usecases.ports import Stream

LOOKS_WHILE_EMPTY = 10
"""Of an empty stream to which nothing was added, one look in so many is taken."""


class Backlog:
    """The stream's backlog as it was last seen, plus what was delivered since."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._entries: int | None = None
        self._spared = 0

    @property
    def entries(self) -> int | None:
        """How many entries no executor has taken; None while Redis does not answer."""
        return self._entries

    async def look(self) -> None:
        """Ask the stream, unless it was empty and must still be: what other dispatchers add may show a second late."""
        if self._entries == 0 and self._spared < LOOKS_WHILE_EMPTY - 1:
            self._spared += 1
            return
        self._spared = 0
        try:
            self._entries = await self._stream.backlog()
        except Exception:
            self._entries = None
            raise

    def note_delivered(self, count: int) -> None:
        """Count entries that were just added."""
        if self._entries is not None:
            self._entries += count
