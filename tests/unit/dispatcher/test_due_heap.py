"""The heap: earliest first, orgs in turn, each execution once."""

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.domain.due_heap import DueHeap
from tests.unit.dispatcher.fake_ports import T0, entry

LATER = T0 + timedelta(days=1)


def names(entries: list) -> list[str]:
    return [item.execution_id for item in entries]


def test_empty_heap_has_nothing_due() -> None:
    assert DueHeap().next_due() is None
    assert DueHeap().take_due(LATER, 10) == []


def test_entries_of_one_org_come_by_due_time_then_arrival() -> None:
    heap = DueHeap()
    heap.add([entry("c", 2), entry("a", 1), entry("b", 1)])
    assert names(heap.take_due(LATER, 10)) == ["a", "b", "c"]


def test_only_what_is_due_is_taken() -> None:
    heap = DueHeap()
    heap.add([entry("now", 0), entry("later", 1)])
    assert names(heap.take_due(T0, 10)) == ["now"]
    assert heap.next_due() == T0 + timedelta(seconds=1)


def test_execution_is_held_once_and_may_come_again_after_it_left() -> None:
    heap = DueHeap()
    heap.add([entry("a"), entry("a")])
    assert len(heap) == 1
    assert names(heap.take_due(T0, 10)) == ["a"]
    heap.add([entry("a")])
    assert names(heap.take_due(T0, 10)) == ["a"]


def test_orgs_take_turns_however_many_entries_one_has() -> None:
    heap = DueHeap()
    heap.add([entry(f"big{n}", org="big") for n in range(1_000)])
    heap.add([entry("small0", org="small"), entry("small1", org="small")])
    assert names(heap.take_due(T0, 5)) == ["big0", "small0", "big1", "small1", "big2"]


def test_turns_go_on_in_the_next_batch() -> None:
    heap = DueHeap()
    for org in ("a", "b", "c"):
        heap.add([entry(f"{org}{n}", org=org) for n in range(3)])
    assert names(heap.take_due(T0, 2)) == ["a0", "b0"]
    assert names(heap.take_due(T0, 2)) == ["c0", "a1"]
    assert names(heap.take_due(T0, 2)) == ["b1", "c1"]


def test_next_due_follows_what_is_taken_and_added() -> None:
    heap = DueHeap()
    heap.add([entry("x", 5, org="a"), entry("y", 3, org="b")])
    assert heap.next_due() == T0 + timedelta(seconds=3)
    heap.add([entry("z", 1, org="a")])
    assert heap.next_due() == T0 + timedelta(seconds=1)
    heap.take_due(T0 + timedelta(seconds=3), 10)
    assert heap.next_due() == T0 + timedelta(seconds=5)


@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_agrees_with_a_plain_list(rng: random.Random, steps: int) -> None:
    heap, model = DueHeap(), {}
    for step in range(steps):
        if rng.random() < 0.6:
            new = entry(f"e{step}", rng.randrange(10), org=f"o{rng.randrange(3)}")
            heap.add([new])
            model[new.execution_id] = new
        else:
            until = T0 + timedelta(seconds=rng.randrange(10))
            limit = rng.randrange(5)
            due = [item for item in model.values() if item.due_time <= until]
            taken = heap.take_due(until, limit)
            assert len(taken) == min(limit, len(due))
            assert all(item in due for item in taken)
            for item in taken:
                del model[item.execution_id]
        assert len(heap) == len(model)
        assert heap.next_due() == min((item.due_time for item in model.values()), default=None)
