"""Compares this replica's clock with MongoDB's, and answers whether the database has a primary and is a replica set.

Leases and due times of all replicas are compared with each other, so a replica whose clock is off must not serve. A
lone server takes every write and could never keep it twice (promise P9), and it has no change streams for watches.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from libs.common.clock import Clock
from libs.common.clock_offset import OffsetEstimator

MAX_OFFSET = timedelta(seconds=1)
"""How far a replica's clock may be off and still serve."""

MAX_AGE_SECONDS = 10.0
"""How old the last answer of a primary may be before the replica is not ready."""


class DatabaseCheck:
    """Asks the primary now and then; the answers feed readiness."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]], clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._offsets = OffsetEstimator()
        self._answered: float | None = None
        self._alone = False

    async def run_once(self) -> None:
        """Ask the primary once, for its clock."""
        sent = self._clock.now()
        answer = await self._database.command("hello")
        local_time = answer["localTime"]
        # The driver decodes commands with the client's options; an old one would hand out a naive instant.
        server_time = local_time if local_time.tzinfo else local_time.replace(tzinfo=UTC)
        self._offsets.add(sent, server_time, self._clock.now())
        if answer.get("isWritablePrimary"):
            self._answered = self._clock.monotonic()
        # A router of shards (`isdbgrid`) stands in front of replica sets.
        self._alone = "setName" not in answer and answer.get("msg") != "isdbgrid"

    @property
    def offset(self) -> timedelta:
        """The database's clock minus ours, as measured last."""
        return self._offsets.raw_offset()

    def check_primary(self) -> str | None:
        """Return why the database counts as away, or None."""
        if self._answered is None:
            return "the database has not answered yet"
        age = self._clock.monotonic() - self._answered
        return None if age <= MAX_AGE_SECONDS else f"no primary has answered for {age:.0f} s"

    def check_replica_set(self) -> str | None:
        """Return what MongoDB has to be, when it is not, or None."""
        return "MongoDB is a lone server; make it a replica set, if only of one" if self._alone else None

    def check_clock(self) -> str | None:
        """Return how far the clock is off, when that is too far, or None."""
        offset = self.offset
        if abs(offset) <= MAX_OFFSET:
            return None
        return f"this clock is off by {offset.total_seconds():.3f} s from the database's"
