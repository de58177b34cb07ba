"""Waiting for another process to get somewhere: polled, and never without a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PAUSE_SECONDS = 0.05


async def wait_until(condition: Callable[[], Awaitable[bool]], *, seconds: float, what: str) -> None:
    """Return as soon as `condition` holds.

    Raises:
        TimeoutError: it did not hold within `seconds`; the message says what was waited for.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await condition():
        if loop.time() >= deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        await asyncio.sleep(PAUSE_SECONDS)
