"""One timer for the deadlines of all calls: what ends in time, as nearly all do, costs no timer of its own.

The timer stands at the earliest deadline that it knew of when it was set. When it rings, whatever is due is cut short,
and it is set anew to the earliest one left; so with calls that may take 30 s it rings about twice a minute, however
many there are, and to move a deadline is an assignment. A deadline never comes early, and late by `GRAIN_SECONDS` at
most beside what the event loop is busy with.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from libs.common.clock import Clock

GRAIN_SECONDS = 0.02
"""Rings are so far apart at least, since each looks at all calls."""


class Deadlines:
    """The deadlines of the calls under way on the running event loop, as instants of the monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        # Not the event loop's own time: it stands still while a turn lasts, and deadlines would come early by that.
        self._clock = clock
        self.loop = asyncio.get_running_loop()
        self._running: set[Deadline] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def now(self) -> float:
        """Return the present instant."""
        return self._clock.monotonic()

    def watch(self, deadline: Deadline) -> None:
        """Cut the deadline's task short when it is reached."""
        self._running.add(deadline)
        self.moved(deadline)

    def moved(self, deadline: Deadline) -> None:
        """Take note of a deadline that may be earlier than it was."""
        if deadline.at < self._rings_at:
            self._ring_at(deadline.at, self.now())

    def forget(self, deadline: Deadline) -> None:
        """Leave the deadline's task alone."""
        self._running.discard(deadline)

    def close(self) -> None:
        """Ring no more."""
        if self._handle is not None:
            self._handle.cancel()

    def _ring_at(self, instant: float, now: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._rings_at = instant
        self._handle = self.loop.call_later(max(instant - now, 0), self._ring)

    def _ring(self) -> None:
        self._handle, self._rings_at = None, math.inf
        now = self.now()
        for deadline in [each for each in self._running if each.at <= now]:
            self._running.discard(deadline)
            deadline.expire()
        if self._running:
            self._ring_at(max(min(each.at for each in self._running), now + GRAIN_SECONDS), now)


class Deadline:
    """The deadline of the task that enters it: a TimeoutError at its end, as `asyncio.timeout` would raise it."""

    __slots__ = ("_cancelling", "_deadlines", "_task", "at", "expired")

    def __init__(self, deadlines: Deadlines, at: float) -> None:
        """Take the instant, on the monotonic clock."""
        self._deadlines = deadlines
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.at = at
        self.expired = False
        """It was reached before the block ended."""

    def move(self, at: float) -> None:
        """Set it to another instant."""
        self.at = at
        self._deadlines.moved(self)

    def expire(self) -> None:
        """Cut the task short; called by the timer."""
        self.expired = True
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Deadline:
        task = self._task = asyncio.current_task(self._deadlines.loop)
        self._cancelling = task.cancelling() if task is not None else 0
        self._deadlines.watch(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise TimeoutError if the block was cut short by this deadline and by nobody else."""
        self._deadlines.forget(self)
        task, self._task = self._task, None
        if not self.expired or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
