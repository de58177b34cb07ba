"""Nobody is let go early, all of one instant go together, and a cancelled wait holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from libs.common.testing.fake_clock import FakeClock
from services.executor.usecases.instants import Instants
from tests.unit.executor.fake_ports import T0, FakeAlarm, due_in


class Bench:
    """Instants whose clock and alarm a test turns by hand."""

    def __init__(self) -> None:
        self.clock = FakeClock(T0)
        self.alarms: list[FakeAlarm] = []
        self.instants = Instants(self.clock, self._make_alarm)
        self.reached: list[str] = []

    async def wait(self, name: str, seconds: float) -> asyncio.Task[None]:
        async def waiting() -> None:
            await self.instants.wait_for(due_in(seconds))
            self.reached.append(name)

        task = asyncio.create_task(waiting())
        await asyncio.sleep(0)
        return task

    async def ring_after(self, seconds: float) -> None:
        self.clock.step_wall(timedelta(seconds=seconds))
        self.alarms[0].ring()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _make_alarm(self, on_ring: Callable[[], None]) -> FakeAlarm:
        self.alarms.append(FakeAlarm(on_ring))
        return self.alarms[-1]


async def test_what_is_past_is_not_waited_for() -> None:
    bench = Bench()
    await bench.wait("past", 0)
    assert (bench.reached, bench.alarms[0].settings) == (["past"], 0)


async def test_each_goes_at_its_instant_and_not_before() -> None:
    bench = Bench()
    tasks = [await bench.wait(name, seconds) for name, seconds in (("b", 0.2), ("a", 0.1), ("a2", 0.1))]
    assert bench.alarms[0].seconds == pytest.approx(0.1)
    await bench.ring_after(0.0999)
    assert bench.reached == []
    await bench.ring_after(0.0001)
    assert bench.reached == ["a", "a2"]
    assert bench.alarms[0].seconds == pytest.approx(0.1)
    await bench.ring_after(0.1)
    assert bench.reached == ["a", "a2", "b"]
    await asyncio.gather(*tasks)


async def test_a_clock_that_goes_back_delays_and_never_hurries() -> None:
    bench = Bench()
    task = await bench.wait("a", 0.5)
    await bench.ring_after(-10)
    assert bench.reached == []
    assert bench.alarms[0].seconds == pytest.approx(1.0)
    await bench.ring_after(10.5)
    assert bench.reached == ["a"]
    await task


async def test_a_cancelled_wait_is_passed_over() -> None:
    bench = Bench()
    first, second = await bench.wait("a", 0.1), await bench.wait("b", 0.2)
    first.cancel()
    await bench.ring_after(0.2)
    assert bench.reached == ["b"]
    await second
