"""The nudge in a process: who waits is woken by what is near, and by what came before it waited."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.testing.fake_clock import FakeClock, settle
from services.scheduler.adapters.due_nudge import KEPT_NOTICES, InProcessNudge
from services.scheduler.testing.fake_due_nudge import FakeDueNudge
from services.scheduler.usecases.ports.due_nudge import DueNudge
from tests.support.scheduler_values import at

LONG = 1000.0


@pytest.fixture(params=["real", "fake"])
def nudge(request: pytest.FixtureRequest) -> DueNudge:
    return InProcessNudge() if request.param == "real" else FakeDueNudge(FakeClock())


async def test_what_is_near_wakes_every_waiter_and_what_is_far_none(nudge: DueNudge) -> None:
    near = [asyncio.create_task(nudge.wait(at(2), LONG, since=nudge.mark())) for _ in range(3)]
    far = asyncio.create_task(nudge.wait(at(1), LONG, since=nudge.mark()))
    await settle()
    nudge.notify(at(2.001))
    await settle()
    assert not any(task.done() for task in near)
    nudge.notify(at(2))
    await settle()
    assert all(task.done() for task in near)
    assert not far.done()
    nudge.notify(at(1))
    await far


async def test_what_came_since_the_mark_ends_a_wait_at_once(nudge: DueNudge) -> None:
    mark = nudge.mark()
    nudge.notify(at(9))
    nudge.notify(at(1))
    nudge.notify(at(9))
    await asyncio.wait_for(nudge.wait(at(2), LONG, since=mark), 5)


async def test_what_came_before_the_mark_or_is_far_does_not(nudge: DueNudge) -> None:
    nudge.notify(at(1))
    mark = nudge.mark()
    nudge.notify(at(9))
    task = asyncio.create_task(nudge.wait(at(2), LONG, since=mark))
    await settle()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_wait_ends_with_its_time(nudge: DueNudge) -> None:
    await asyncio.wait_for(nudge.wait(at(2), 0.0, since=nudge.mark()), 5)


async def test_more_notices_than_are_kept_end_a_wait() -> None:
    nudge = InProcessNudge()
    mark = nudge.mark()
    nudge.notify(at(1))
    for _ in range(KEPT_NOTICES):
        nudge.notify(at(9))
    await asyncio.wait_for(nudge.wait(at(2), LONG, since=mark), 5)
