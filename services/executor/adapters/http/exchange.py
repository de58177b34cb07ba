"""How far one call has come, and its deadline: connecting, the first byte and the whole answer are phases of one.

The total counts from the instant at which the request may leave, over all redirects, down to the last byte, so that an
answer that trickles cannot outlive it. Connecting has its own limit on each hop, with the look-up of the name and the
wait for a connection of other calls in it. The connector finds the call it works for in a context variable: aiohttp has
no other way that costs nothing.
"""

from __future__ import annotations

import enum
from contextvars import ContextVar

from services.executor.adapters.http.deadlines import Deadline, Deadlines
from services.executor.domain.report import CallProgress
from services.executor.usecases.ports import Release


class Phase(enum.Enum):
    """What a call waits for."""

    CONNECTING = enum.auto()
    """A connection for the current hop; nothing of its request has left."""
    SENT = enum.auto()
    """The head of the answer; the target may have the request."""
    ANSWERING = enum.auto()
    """The rest of the answer."""


class Exchange:
    """One call's state; `deadline` is moved where a phase may not take as long as the whole."""

    def __init__(
        self,
        progress: CallProgress,
        deadlines: Deadlines,
        release: Release,
        org_id: str,
        *,
        total: float,
        connect: float,
        first_byte: float,
    ) -> None:
        """Take the timeouts in seconds."""
        self._progress = progress
        self._clock = deadlines
        self._release: Release | None = release
        self._total = total
        self._ends_at = deadlines.now() + total
        self._connect = connect
        self._first_byte = first_byte
        self.deadline = Deadline(deadlines, self._ends_at)
        self.org_id = org_id
        """Whose call it is, among whom look-ups of names are shared out."""
        self.host = ""
        """The host name being dialled, by which the address guard's allow-list may go."""
        self.phase = Phase.CONNECTING
        self.dialled = False
        """Whether the hop's connection is a new one, and none of the pool's; told by who opens its socket."""

    def dialling(self, host: str) -> None:
        """Begin a hop."""
        self.host = host
        self.connecting()

    def connecting(self) -> None:
        """Note that a connection is asked for; it must stand within the connect timeout."""
        self.phase = Phase.CONNECTING
        self.dialled = False
        self.deadline.move(min(self._clock.now() + self._connect, self._ends_at))

    def connected(self) -> None:
        """Note that a connection stands; it may be held until the request may leave."""
        self.deadline.move(self._ends_at)

    async def wait_for_release(self) -> bool:
        """Wait, over a connection that stands, until the request may leave; return whether there was a wait."""
        if self._release is None:
            return False
        release, self._release = self._release, None
        if not await release():
            return False
        # Timeouts are for what the target takes, and we were early on our own account.
        self._ends_at = self._clock.now() + self._total
        return True

    def leaving(self) -> None:
        """Note that the request leaves from now on; the head of the answer must come within the first-byte timeout."""
        self.phase = Phase.SENT
        self._progress.may_be_sent = True
        self.deadline.move(min(self._clock.now() + self._first_byte, self._ends_at))

    def answering(self) -> None:
        """Note that the head of the answer came; only the total limits the rest."""
        self.phase = Phase.ANSWERING
        self.deadline.move(self._ends_at)


current_exchange: ContextVar[Exchange] = ContextVar("current_exchange")
"""The call that the running task makes."""
