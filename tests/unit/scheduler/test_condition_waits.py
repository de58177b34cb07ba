"""PyMongo's waits on conditions: a cancellation that comes while one ends must not leave the lock held for ever."""

from __future__ import annotations

import asyncio

import pytest
from pymongo.asynchronous import pool
from pymongo.lock import _async_create_condition, _async_create_lock

from services.scheduler.adapters.mongo.condition_waits import mend_condition_waits


async def test_a_wait_cancelled_while_it_ends_leaves_the_lock_free() -> None:
    mend_condition_waits()
    lock = _async_create_lock()
    condition = _async_create_condition(lock)
    waiting = asyncio.Event()

    async def wait() -> None:
        async with condition:
            waiting.set()
            await pool._async_cond_wait(condition, 60)

    task = asyncio.create_task(wait())
    await waiting.wait()
    async with lock:
        # The first cancellation ends the wait, which must take the lock back and cannot; the second comes meanwhile.
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    # A task that was left behind would take it now.
    for _ in range(5):
        await asyncio.sleep(0)
    assert not lock.locked()
