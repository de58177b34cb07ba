"""Orgs share an executor's request slots: slow targets of one of them never keep the others waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from libs.common.testing.fake_clock import FakeClock
from services.executor.domain.org_slots import LEAST_TURN, MOST_TURN, OrgSlots
from services.executor.usecases.due_waiter import PATIENCE, DueWaiter
from services.executor.usecases.held_attempts import Abort, Held
from tests.unit.executor.fake_ports import T0, FakeAlarm, due_in, make_grant

SECOND = timedelta(seconds=1)


class Bench:
    """A waiter with few slots, whose attempts run until a test ends them."""

    def __init__(self, slots: int = 10, share: float = 0.8) -> None:
        self.clock = FakeClock(T0)
        self.running: list[tuple[str, Callable[[], None]]] = []
        self.order: list[str] = []
        self.waiter = DueWaiter(self.clock, FakeAlarm, self._start, slots, org_share=share)

    def add(self, org: str, count: int, seconds: float = 0.0) -> list[Held]:
        grants = [make_grant(f"{org}-{seconds}-{n}", due=due_in(seconds)) for n in range(count)]
        held = [Held(replace(grant, org_id=org), 1e9, None) for grant in grants]
        self.waiter.add(held)
        return held

    def end(self, org: str) -> None:
        entry = next(entry for entry in self.running if entry[0] == org)
        self.running.remove(entry)
        entry[1]()

    def counts(self) -> Counter[str]:
        return Counter(org for org, _ in self.running)

    def _start(self, held: Held, free_slot: Callable[[], None]) -> None:
        self.order.append(held.lease.execution_id)
        self.running.append((held.grant.org_id, free_slot))


def test_no_org_has_more_than_its_share() -> None:
    bench = Bench()
    bench.add("slow", 50)
    assert bench.counts() == {"slow": 8}
    bench.add("other", 1)
    assert bench.counts() == {"slow": 8, "other": 1}


def test_a_single_slot_serves_everybody() -> None:
    bench = Bench(slots=1)
    bench.add("a", 2)
    bench.add("b", 2)
    for _ in range(3):
        bench.end(bench.running[0][0])
    assert Counter(name[0] for name in bench.order) == {"a": 2, "b": 2}


def test_a_freed_slot_goes_to_the_org_that_has_the_fewest() -> None:
    bench = Bench()
    bench.add("a", 50, seconds=-2)
    bench.add("b", 50, seconds=-1)
    bench.add("c", 50)
    assert bench.counts() == {"a": 8, "b": 2}
    for _ in range(5):
        bench.end("a")
    assert bench.counts() == {"a": 4, "b": 3, "c": 3}


def test_within_an_org_the_oldest_goes_first() -> None:
    bench = Bench(slots=1, share=1.0)
    bench.add("a", 1)
    bench.add("a", 1, seconds=-1)
    bench.add("a", 1, seconds=-5)
    bench.end("a")
    bench.end("a")
    assert bench.order == ["a-0.0-0", "a--5-0", "a--1-0"]


def test_what_waits_too_long_for_its_orgs_share_is_given_away_each_with_a_turn() -> None:
    bench = Bench()
    held = bench.add("slow", 20)
    bench.add("other", 1)
    assert bench.waiter.turned_away() == []
    bench.clock.step_wall(PATIENCE)
    away = bench.waiter.turned_away()
    assert [each for each, _ in away] == held[8:]
    turns = [until - bench.clock.now() for _, until in away]
    assert turns == sorted(turns)
    assert turns[0] == LEAST_TURN
    # Nothing is known of its calls yet: a second each, eight at a time.
    assert turns[-1] == 12 * SECOND / 8
    assert bench.waiter.turned_away() == []
    bench.end("slow")
    assert bench.counts() == {"slow": 7, "other": 1}


def test_what_waits_for_others_slots_only_is_kept() -> None:
    bench = Bench()
    bench.add("a", 8)
    bench.add("b", 8)
    assert bench.counts() == {"a": 8, "b": 2}
    bench.clock.step_wall(10 * SECOND)
    assert bench.waiter.turned_away() == []
    bench.end("a")
    assert bench.counts() == {"a": 7, "b": 3}


def test_an_aborted_attempt_neither_starts_nor_is_given_away() -> None:
    bench = Bench()
    waiting = bench.add("slow", 10)[8:]
    waiting[0].abort = Abort.CANCELLED
    bench.clock.step_wall(PATIENCE)
    assert [held for held, _ in bench.waiter.turned_away()] == waiting[1:]
    bench.add("slow", 2)[0].abort = Abort.LOST
    bench.end("slow")
    assert bench.counts() == {"slow": 8}


@pytest.mark.parametrize(("seconds", "first", "last"), [(0.01, 1.0, 1.0), (8.0, 1.0, 10.0), (10_000.0, 300.0, 300.0)])
def test_turns_follow_the_duration_of_calls_within_bounds(seconds: float, first: float, last: float) -> None:
    slots = OrgSlots(10, 0.8)
    for _ in range(8):
        slots.take("a")
    slots.free("a", seconds, T0)
    slots.take("a")
    turns = [(slots.turn("a", T0) - T0).total_seconds() for _ in range(10)]
    assert (turns[0], turns[-1]) == (first, last)
    assert max(turns) <= MOST_TURN.total_seconds()


def test_an_org_that_is_done_is_forgotten() -> None:
    slots = OrgSlots(10, 0.8)
    slots.take("a")
    slots.free("a", 30.0, T0)
    assert not slots.taken
    # A guess again, as for one that was never seen.
    assert slots.turn("a", T0) == T0 + LEAST_TURN
