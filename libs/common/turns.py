"""Shares the event loop between long work on batches and short calls.

A batch of hundreds is worked on for tens of milliseconds, and several of them at one time. A caller's read passes
through the loop some eight times, and would wait each time for a part of each. So the loops over batches have turns:
one of them goes on for some items, then the loop goes round once, and then another one of them has its turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar
from weakref import WeakKeyDictionary

ITEMS_A_TURN = 25
"""Worked on in one turn: one to three milliseconds."""

_T = TypeVar("_T")

_waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, deque[asyncio.Future[None]]] = WeakKeyDictionary()


async def in_turns(items: Iterable[_T], *, of: int = ITEMS_A_TURN) -> AsyncIterator[_T]:
    """Yield the items, and let others have their turn after every `of` of them."""
    for index, item in enumerate(items):
        if index and index % of == 0:
            await next_turn()
        yield item


async def next_turn() -> None:
    """Return when the event loop has gone round, and it is nobody else's turn."""
    loop = asyncio.get_running_loop()
    waiting = _waiting.setdefault(loop, deque())
    turn = loop.create_future()
    waiting.append(turn)
    if len(waiting) == 1:
        loop.call_soon(_pass_on, loop, waiting)
    await turn


def _pass_on(loop: asyncio.AbstractEventLoop, waiting: deque[asyncio.Future[None]]) -> None:
    """Give the turn to the one that has waited longest."""
    turn = waiting.popleft()
    if not turn.done():
        turn.set_result(None)
    if waiting:
        loop.call_soon(_pass_on, loop, waiting)
