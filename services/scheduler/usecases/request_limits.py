"""How often an org and a caller may call, shared by all replicas.

A caller's calls are taken from the shared window in blocks, so that a read costs no database write: a replica that
holds an unused part of a block spends it here. A limit is exact to one block for each replica. Creations are taken one
by one (a batch at once), since few are allowed.

A refusal of calls is remembered until its window ends: whoever keeps calling is refused without touching the database.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from libs.common.clock import Clock
from libs.common.errors import ResourceExhaustedError
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.org_settings import OrgSettingsReader

BLOCKS_PER_MINUTE = 60
"""How many blocks a limit is divided into: about one write a second for a caller at its limit."""

BLOCK_SECONDS = 60.0
"""How long a block is good for: a part of a window is not carried far into the next."""

MAX_REMEMBERED = 10_000
"""Callers whose blocks a replica holds at once; the longest silent one is forgotten."""


class Windows(Protocol):
    """Windows of one minute that all replicas share."""

    async def take(self, key: str, limit: int, cost: int) -> bool:
        """Take a cost out of the key's window; False, and as good as nothing taken, when it exceeds the limit."""
        ...

    async def end_time(self, key: str, limit: int) -> datetime:
        """Return when the key's window ends."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an installation a minute; None: no limit."""

    calls: int | None
    creates: int | None
    batch_creates: int | None


@dataclass(slots=True)
class _Block:
    """A part of a window that this replica took and has not used up."""

    left: int
    expire: float
    refused_until: datetime | None = None
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)


class RequestLimits:
    """Refuses calls above the limits."""

    def __init__(self, windows: Windows, orgs: OrgSettingsReader, clock: Clock, limits: Limits) -> None:
        self._windows = windows
        self._orgs = orgs
        self._clock = clock
        self._limits = limits
        self._blocks: OrderedDict[str, _Block] = OrderedDict()

    async def charge_call(self, caller: Caller) -> None:
        """Count one call of a caller.

        Raises:
            ResourceExhaustedError: CALL_RATE_EXCEEDED.
        """
        limit = self._limits.calls
        if limit is None:
            return
        refused_until = await self._spend(f"calls/{caller.scope.org_id}/{caller.subject}", limit)
        if refused_until is not None:
            raise self._exhausted("CALL_RATE_EXCEEDED", "calls", limit, refused_until, caller)

    async def charge_create(self, caller: Caller) -> None:
        """Count one creation of a job in the caller's org.

        Raises:
            ResourceExhaustedError: CREATE_RATE_EXCEEDED.
        """
        if self._limits.creates is None:
            return
        limit = (await self._orgs.read(caller.scope.org_id)).max_creates_per_minute
        refused_until = await self._take(f"creates/{caller.scope.org_id}", limit, 1)
        if refused_until is not None:
            raise self._exhausted("CREATE_RATE_EXCEEDED", "job creations", limit, refused_until, caller)

    async def charge_batch(self, caller: Caller, size: int) -> None:
        """Count the creations of a batch, which have a budget of their own.

        Raises:
            ResourceExhaustedError: BATCH_CREATE_RATE_EXCEEDED.
        """
        limit = self._limits.batch_creates
        if limit is None or size == 0:
            return
        refused_until = await self._take(f"batch_creates/{caller.scope.org_id}", limit, size)
        if refused_until is not None:
            raise self._exhausted(
                "BATCH_CREATE_RATE_EXCEEDED", "job creations in batches", limit, refused_until, caller
            )

    async def _take(self, key: str, limit: int, cost: int) -> datetime | None:
        """Take a cost out of a window; returns when to come back if it is used up."""
        if await self._windows.take(key, limit, cost):
            return None
        return await self._windows.end_time(key, limit)

    async def _spend(self, key: str, limit: int) -> datetime | None:
        """Spend one of the block at hand, or of a new one; returns when to come back if there is none."""
        block = self._block(key)
        if block.left == 0:
            # One takes a block and the others wait for it: each with a block of its own would use up the window.
            async with block.taking:
                refused_until = await self._refill(block, key, limit) if block.left == 0 else None
            if refused_until is not None:
                return refused_until
        block.left -= 1
        return None

    async def _refill(self, block: _Block, key: str, limit: int) -> datetime | None:
        if block.refused_until is None or self._clock.now() >= block.refused_until:
            size = max(1, limit // BLOCKS_PER_MINUTE)
            block.refused_until = await self._take(key, limit, size)
            if block.refused_until is None:
                block.left += size
        return block.refused_until

    def _block(self, key: str) -> _Block:
        now = self._clock.monotonic()
        block = self._blocks.get(key)
        if block is None or now >= block.expire:
            block = self._blocks[key] = _Block(0, now + BLOCK_SECONDS)
            if len(self._blocks) > MAX_REMEMBERED:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return block

    def _exhausted(
        self, reason: str, what: str, limit: int, refused_until: datetime, caller: Caller
    ) -> ResourceExhaustedError:
        wait = max((refused_until - self._clock.now()).total_seconds(), 0)
        return ResourceExhaustedError(
            reason,
            f"more than {limit} {what} a minute; try again in {wait:.0f} s",
            retry_after_seconds=wait,
            metadata={
                "subject": f"org:{caller.scope.org_id}",
                "limit": str(limit),
                "retryAfterSeconds": f"{wait:.0f}",
            },
        )
