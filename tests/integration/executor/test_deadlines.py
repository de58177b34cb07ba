"""Deadlines cut short what takes too long, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.clock import SystemClock
from services.executor.adapters.http.deadlines import GRAIN_SECONDS, Deadline, Deadlines


@pytest.fixture
async def deadlines() -> Deadlines:
    return Deadlines(SystemClock())


async def limited(deadlines: Deadlines, seconds: float, taking: float = 60.0) -> float:
    """Wait for as long as it takes, or until the deadline, and return how long that was."""
    began = deadlines.now()
    try:
        with Deadline(deadlines, began + seconds):
            await asyncio.sleep(taking)
    except TimeoutError:
        return deadlines.now() - began
    return -1.0


async def test_many_deadlines_are_kept_by_one_timer_and_none_comes_early(deadlines: Deadlines) -> None:
    spans = [0.05, 0.21, 0.1, 0.1, 0.15, 0.05]
    took = await asyncio.gather(*(limited(deadlines, span) for span in spans))
    for span, waited in zip(spans, took, strict=True):
        assert span <= waited < span + GRAIN_SECONDS + 0.2


async def test_what_ends_in_time_is_left_alone(deadlines: Deadlines) -> None:
    assert await limited(deadlines, 0.1, taking=0.01) == -1.0
    await asyncio.sleep(0.15)


async def test_a_deadline_can_be_moved_both_ways(deadlines: Deadlines) -> None:
    began = deadlines.now()

    async def moved() -> None:
        with Deadline(deadlines, began + 60) as deadline:
            deadline.move(began + 0.05)
            deadline.move(began + 0.2)
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await moved()
    assert 0.2 <= deadlines.now() - began < 1


async def test_a_cancellation_from_outside_stays_one(deadlines: Deadlines) -> None:
    async def wait() -> None:
        with Deadline(deadlines, deadlines.now() + 0.01) as deadline:
            while not deadline.expired:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    if not deadline.expired:
                        raise
            # Both came: the one from outside counts.
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_another_error_at_the_deadline_stays_itself(deadlines: Deadlines) -> None:
    async def failing() -> None:
        with Deadline(deadlines, deadlines.now() + 0.01):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise ZeroDivisionError from None

    with pytest.raises(ZeroDivisionError):
        await failing()
    # The task goes on as if nothing had been.
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
