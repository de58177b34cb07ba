"""Lets what is asked at the same time share one round trip to the database.

A round trip costs both ends much the same for one job as for fifty. So while one is under way, those that come wait for
it to end and then go together. One that comes alone goes after a few turns of the event loop, which let in whoever is
about to ask. Nobody joins a round trip that has begun: each sees all that was acknowledged before it asked.

What is asked is shared under a key only, such as an org's scope, and keys do not wait for each other. Each asker learns
what came of its own item. A round trip that fails fails for all that shared it: none of them may be sure of anything,
as none could after one of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")

TURNS = 6
"""Turns of the event loop that a round trip is held for those who are about to ask: next to no time while there is
little to do, and under load what is waiting anyway to be worked off."""

MAX_HOLDS = 5
"""How often it is held again because somebody came. It spares more than half of the round trips of fifty callers."""


class SharedRoundTrips(Generic[_Key, _Item, _Answer]):
    """Collects items by key; `travel` takes a key's items and returns an answer for each, in their order."""

    def __init__(
        self, travel: Callable[[_Key, Sequence[_Item]], Awaitable[Sequence[_Answer]]], *, most: int = 250
    ) -> None:
        """Take how many items share one round trip at most, too."""
        self._travel = travel
        self._most = most
        self._waiting: dict[_Key, list[tuple[_Item, asyncio.Future[_Answer]]]] = {}
        """By key, as long as a task goes for it."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, key: _Key, item: _Item) -> _Answer:
        """Return the answer for an item; raises what its round trip failed with."""
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append((item, answer))
        else:
            self._waiting[key] = [(item, answer)]
            # In a context of its own: a round trip belongs to no single call, and must not count as that call's.
            task = asyncio.create_task(self._go(key), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def _go(self, key: _Key) -> None:
        try:
            while waiting := self._waiting[key]:
                await _hold(waiting)
                group = waiting[: self._most]
                del waiting[: self._most]
                await self._go_once(key, group)
        finally:
            del self._waiting[key]

    async def _go_once(self, key: _Key, group: Sequence[tuple[_Item, asyncio.Future[_Answer]]]) -> None:
        try:
            answers = await self._travel(key, [item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - it is the askers', who wait for it
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), answer in zip(group, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


async def _hold(waiting: Sequence[object]) -> None:
    """Let those in who are about to ask, as long as somebody comes."""
    present = 0
    for _ in range(MAX_HOLDS):
        if len(waiting) == present:
            return
        present = len(waiting)
        for _ in range(TURNS):
            await asyncio.sleep(0)
