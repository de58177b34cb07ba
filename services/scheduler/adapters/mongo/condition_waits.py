"""Mends how PyMongo waits on its conditions under Python 3.11.

PyMongo bounds such a wait with `asyncio.wait_for`, which before Python 3.12 runs it in a task of its own. Cancelled or
timed out, that task still has to take the lock back; when a further cancellation comes meanwhile, `wait_for` leaves it
behind. The caller then releases a lock that it does not hold, and the task takes it for ever. Once that happens to the
lock of the topology, every later operation of the client hangs, beyond its own time limit; some calls whose deadlines
pass during an election are enough. `asyncio.timeout` bounds the wait within the caller's task, where the lock is always
taken back before anything is raised.
"""

from __future__ import annotations

import asyncio
import sys

from pymongo.asynchronous import pool, topology


def mend_condition_waits() -> None:
    """Replace the wait where it is used; does nothing where `asyncio.wait_for` is sound."""
    if sys.version_info >= (3, 12):
        return
    pool._async_cond_wait = _wait  # type: ignore[assignment,attr-defined]  # noqa: SLF001
    topology._async_cond_wait = _wait  # type: ignore[assignment,attr-defined]  # noqa: SLF001


async def _wait(condition: asyncio.Condition, timeout: float | None) -> bool:
    """Wait to be notified; return False if that took longer than `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            await condition.wait()
    except TimeoutError:
        return False
    return True
