"""Watches how full the stream is. Between two looks, what this dispatcher adds counts as not yet taken."""

from __future__ import annotations

from services.dispatcher.usecases.ports import Stream


class Backlog:
    """The stream's backlog as it was last seen, plus what was delivered since."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._entries: int | None = None

    @property
    def entries(self) -> int | None:
        """How many entries no executor has taken; None while Redis does not answer."""
        return self._entries

    async def look(self) -> None:
        """Ask the stream."""
        try:
            self._entries = await self._stream.backlog()
        except Exception:
            self._entries = None
            raise

    def note_delivered(self, count: int) -> None:
        """Count entries that were just added."""
        if self._entries is not None:
            self._entries += count
