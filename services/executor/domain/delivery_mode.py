"""Decides how due work is fetched: from the streams, by polling the scheduler, or both while Redis comes back.

    STREAMS ── no read succeeds ──> POLLING ── a read succeeds ──> RECOVERING ── quiet for a while ──> STREAMS
                                       ^──────── a read fails again ───────┘

A shard counts as silent only while a read of it is under way or failing: an executor that does not read because it is
full, or because the scheduler is away, learns nothing about Redis. The most silent shard decides. Instants are
seconds of a monotonic clock, given by the caller.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Mode(enum.Enum):
    """How due work is fetched."""

    STREAMS = "STREAMS"
    """From the streams; the poll path only redelivers what is overdue."""
    POLLING = "POLLING"
    """Redis is away: everything that is due comes by the poll path."""
    RECOVERING = "RECOVERING"
    """Redis is back, dispatchers may not be: both paths, and the database decides who gets what."""


@dataclass(frozen=True, slots=True)
class ModeChange:
    """A step from one mode to another."""

    before: Mode
    after: Mode


class DeliveryMode:
    """The mode and what it follows from; every method returns the change that it caused, if any."""

    def __init__(self, *, silence_seconds: float, recovery_seconds: float) -> None:
        self._silence_seconds = silence_seconds
        self._recovery_seconds = recovery_seconds
        self._unanswered_since: dict[int, float] = {}
        self._recovering_since = 0.0
        self.mode = Mode.STREAMS

    def read_started(self, shard: int, now: float) -> ModeChange | None:
        """Note that a read was asked for; the silence counts from the first one that is not answered."""
        self._unanswered_since.setdefault(shard, now)
        return self.check(now)

    def read_succeeded(self, shard: int, now: float) -> ModeChange | None:
        """Note that a read was answered, with entries or without."""
        self._unanswered_since.pop(shard, None)
        # Reads of the other shards are under way at any time; those that are silent count from long ago.
        if self.mode is Mode.POLLING and not self._silent(now):
            self._recovering_since = now
            return self._change(Mode.RECOVERING)
        return self.check(now)

    def read_failed(self, shard: int, now: float) -> ModeChange | None:
        """Note that a read was refused or broke off."""
        self._unanswered_since.setdefault(shard, now)
        if self.mode is Mode.RECOVERING:
            return self._change(Mode.POLLING)
        return self.check(now)

    def reading_stopped(self, shard: int) -> None:
        """Note that the shard is not read for reasons of our own, so that its silence means nothing."""
        self._unanswered_since.pop(shard, None)

    def check(self, now: float) -> ModeChange | None:
        """Let time pass: a read that hangs counts as silence, a recovery ends."""
        if self.mode is not Mode.POLLING and self._silent(now):
            return self._change(Mode.POLLING)
        if self.mode is Mode.RECOVERING and now - self._recovering_since >= self._recovery_seconds:
            return self._change(Mode.STREAMS)
        return None

    def _silent(self, now: float) -> bool:
        return any(now - since >= self._silence_seconds for since in self._unanswered_since.values())

    def _change(self, after: Mode) -> ModeChange:
        change = ModeChange(self.mode, after)
        self.mode = after
        return change
