"""Started ahead by the head start, oldest first, one ring for an instant, no more at a time than there are slots."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from libs.common.testing.fake_clock import FakeClock
from services.executor.usecases.due_waiter import AHEAD_A_TURN, HEAD_START, DueWaiter
from services.executor.usecases.held_attempts import Abort, Held
from tests.unit.executor.fake_ports import T0, FakeAlarm, due_in, make_grant


class Bench:
    """A waiter whose clock and alarm a test turns by hand."""

    def __init__(self, concurrency: int = 100) -> None:
        self.clock = FakeClock(T0)
        self.started: list[str] = []
        self.slots: list[Callable[[], None]] = []
        self.alarms: list[FakeAlarm] = []
        self.waiter = DueWaiter(self.clock, self._make_alarm, self._start, concurrency)

    @property
    def alarm(self) -> FakeAlarm:
        return self.alarms[0]

    def add(self, *attempts: tuple[str, float]) -> list[Held]:
        held = [Held(make_grant(name, due=due_in(seconds)), 1e9, None) for name, seconds in attempts]
        self.waiter.add(held)
        return held

    def pass_time(self, seconds: float) -> None:
        self.clock.step_wall(timedelta(seconds=seconds))

    def _make_alarm(self, on_ring: Callable[[], None]) -> FakeAlarm:
        self.alarms.append(FakeAlarm(on_ring))
        return self.alarms[-1]

    def _start(self, held: Held, free_slot: Callable[[], None]) -> None:
        assert held.grant.due_time - HEAD_START <= self.clock.now()
        self.started.append(held.lease.execution_id)
        self.slots.append(free_slot)


def test_what_is_due_starts_at_once_and_the_rest_waits() -> None:
    bench = Bench()
    bench.add(("now", 0), ("late", -5), ("soon", 0.25))
    assert bench.started == ["late", "now"]
    assert bench.alarm.seconds == pytest.approx(0.15)


def test_what_is_near_starts_ahead_and_only_a_few_in_one_turn() -> None:
    bench = Bench()
    near = [(f"e{n}", 0.05 + n / 1000) for n in range(AHEAD_A_TURN + 1)]
    bench.add(("due", 0), *near)
    assert bench.started == ["due", *(name for name, _ in near[:-1])]
    assert bench.alarm.seconds == pytest.approx(0, abs=0.001)
    bench.alarm.ring()
    assert bench.started[-1] == near[-1][0]


def test_an_early_ring_starts_nothing_and_is_set_anew() -> None:
    bench = Bench()
    bench.add(("a", 0.25))
    bench.pass_time(0.1499)
    bench.alarm.ring()
    assert bench.started == []
    assert bench.alarm.seconds == pytest.approx(0.0001)
    bench.pass_time(0.0001)
    bench.alarm.ring()
    assert bench.started == ["a"]


def test_attempts_of_one_instant_share_one_ring() -> None:
    bench = Bench()
    bench.add(*((f"e{n}", 0.5) for n in range(50)))
    assert bench.alarm.settings == 1
    bench.pass_time(0.5)
    bench.alarm.ring()
    assert bench.started == [f"e{n}" for n in range(50)]


def test_the_alarm_moves_only_for_an_earlier_instant() -> None:
    bench = Bench()
    bench.add(("b", 0.5))
    bench.add(("c", 0.7))
    assert (bench.alarm.settings, bench.alarm.seconds) == (1, pytest.approx(0.4))
    bench.add(("a", 0.3))
    assert (bench.alarm.settings, bench.alarm.seconds) == (2, pytest.approx(0.2))


def test_a_long_wait_is_cut_into_naps_so_that_a_clock_step_is_noticed() -> None:
    bench = Bench()
    bench.add(("a", 3600))
    assert bench.alarm.seconds == pytest.approx(1.0)
    bench.pass_time(3600)
    bench.alarm.ring()
    assert bench.started == ["a"]


def test_a_clock_that_goes_back_delays_and_never_hurries() -> None:
    bench = Bench()
    bench.add(("a", 0.5))
    bench.pass_time(-10)
    bench.alarm.ring()
    assert bench.started == []
    assert bench.alarm.seconds == pytest.approx(1.0)


def test_no_more_start_than_there_are_slots_and_freed_slots_go_to_the_oldest() -> None:
    bench = Bench(concurrency=2)
    bench.add(("c", -1), ("a", -3), ("b", -2), ("d", 0.2))
    assert (bench.started, bench.waiter.running) == (["a", "b"], 2)
    assert bench.alarm.seconds is None
    bench.slots[0]()
    assert bench.started == ["a", "b", "c"]
    bench.slots[1]()
    assert (bench.started, bench.alarm.seconds) == (["a", "b", "c"], pytest.approx(0.1))


def test_an_aborted_attempt_never_starts() -> None:
    bench = Bench()
    first, _ = bench.add(("a", 0.2), ("b", 0.3))
    first.abort = Abort.LOST
    bench.pass_time(0.2)
    bench.alarm.ring()
    assert bench.started == ["b"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_nothing_is_early_and_everything_starts(seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench(concurrency=5)
    attempts = [(f"e{n}", chance.uniform(-1, 3)) for n in range(200)]
    for name, seconds in attempts:
        bench.add((name, seconds))
        bench.pass_time(chance.uniform(0, 0.02))
        if bench.alarm.seconds is not None:
            bench.alarm.ring()
        if bench.slots and chance.random() < 0.5:
            bench.slots.pop(chance.randrange(len(bench.slots)))()
    bench.pass_time(10)
    bench.alarm.ring()
    while bench.slots:
        bench.slots.pop()()
    assert sorted(bench.started) == sorted(name for name, _ in attempts)
    assert bench.waiter.running == 0
