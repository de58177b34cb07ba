"""All attempts that this executor holds a lease of, from the grant until their report was taken.

The number held is the executor's one bound: readers and pollers ask for no more than there is room for, and a place
is given back only when the scheduler has taken the report. So the report buffer needs no bound of its own, and a
scheduler that is away stops the intake by itself. Several readers may ask for the same room at once; the overshoot is
at most one batch for each source.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from services.executor.domain.attempt import Grant, Lease
from services.executor.domain.gate_values import Admitted, TargetKey, from_micros, to_micros
from services.executor.domain.report import CallProgress
from services.executor.usecases.ports import Entry


class Phase(enum.Enum):
    """How far a held attempt is."""

    WAITING = enum.auto()
    """To be let through, for its instant, or for a free request slot."""
    CALLING = enum.auto()
    """Its POST is being made."""
    CONCLUDING = enum.auto()
    """Its result stands; the answer is being uploaded or the report waits to be taken."""


class Abort(enum.Enum):
    """Why an attempt is cut short."""

    LOST = enum.auto()
    """Somebody else holds it now."""
    EXPIRED = enum.auto()
    """Its lease ran out before it was sent; somebody else may hold it now."""
    CANCELLED = enum.auto()
    """A caller asked for it."""
    DRAINED = enum.auto()
    """This executor stops."""


@dataclass(slots=True, eq=False)
class Held:
    """One held attempt; changed only by its runner, its admission and the lease keeper."""

    grant: Grant
    expires: float
    """When the lease runs out unless it is renewed, on the monotonic clock."""
    entry: Entry | None
    """What to acknowledge in the end; None when it came by the poll path."""
    phase: Phase = Phase.WAITING
    abort: Abort | None = None
    progress: CallProgress = field(default_factory=CallProgress)
    task: asyncio.Task[None] | None = None
    start_time: datetime = field(init=False)
    """The instant before which its POST must not start: its due time, or its slot if that is later."""
    target: TargetKey | None = None
    """The gate that it passes; None: its address is none, so it is refused without one."""
    admitted: Admitted | None = None
    """The slot that it holds; None before it was let through, and after its gate heard of its end."""
    waits_since: float | None = None
    """When it was first told that all places are taken, on the monotonic clock."""

    def __post_init__(self) -> None:
        self.start_time = self.grant.due_time

    def let_through(self, admitted: Admitted) -> None:
        """Take the slot that its gate gave it."""
        self.admitted = admitted
        self.start_time = max(self.grant.due_time, from_micros(admitted.slot))

    def is_overdue(self, now: datetime) -> bool:
        """Whether it is too late for the slot that it holds."""
        return self.admitted is not None and to_micros(now) > self.admitted.start_by

    def give_back(self) -> None:
        """Let go of its slot."""
        self.admitted = None
        self.start_time = self.grant.due_time

    @property
    def lease(self) -> Lease:
        """Return the lease it is held under."""
        return self.grant.lease


class HeldAttempts:
    """The held attempts by lease, and the room for more."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: dict[Lease, Held] = {}
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        """Iterate over a copy, so that attempts may end meanwhile."""
        return iter(tuple(self._held.values()))

    def __contains__(self, lease: Lease) -> bool:
        return lease in self._held

    @property
    def free(self) -> int:
        """How many more may be taken."""
        return max(self._capacity - len(self._held), 0)

    def add(self, held: Held) -> None:
        """Hold one more; the caller has made sure that its lease is not held yet."""
        self._held[held.lease] = held
        self._empty.clear()
        if not self.free:
            self._room.clear()

    def remove(self, held: Held) -> None:
        """Let go of one."""
        del self._held[held.lease]
        if self.free:
            self._room.set()
        if not self._held:
            self._empty.set()

    async def wait_for_room(self) -> None:
        """Return when there is room for at least one more."""
        await self._room.wait()

    async def wait_until_empty(self) -> None:
        """Return when nothing is held."""
        await self._empty.wait()
