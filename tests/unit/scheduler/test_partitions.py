"""Who looks after which partition: never two, evenly, and taken over when a lease runs out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.domain.job import PARTITION_COUNT
from services.scheduler.domain.partitions import PartitionTable, release, renew
from tests.support.scheduler_values import NOW, SECOND, at

LEASE = 5 * SECOND
EMPTY = PartitionTable({}, {})


def renewed(table: PartitionTable, *dispatchers: str, now: datetime = NOW) -> PartitionTable:
    for dispatcher in dispatchers:
        table = renew(table, dispatcher, now + LEASE, now)
    return table


def counts(table: PartitionTable) -> dict[str, int]:
    return {dispatcher: len(table.held_by(dispatcher)) for dispatcher in sorted(table.leases)}


def test_the_first_dispatcher_takes_all() -> None:
    table = renewed(EMPTY, "a")
    assert table.held_by("a") == tuple(range(PARTITION_COUNT))
    assert (table.leases, table.version) == ({"a": NOW + LEASE}, 1)


def test_a_second_one_takes_only_what_the_first_gave_back() -> None:
    table = renewed(EMPTY, "a", "b")
    assert counts(table) == {"a": 256, "b": 0}
    table = renewed(table, "a")
    assert counts(table) == {"a": 128, "b": 0}
    table = renewed(table, "b")
    assert counts(table) == {"a": 128, "b": 128}
    assert renewed(table, "a", "b").holders == table.holders


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100, 256, 300])
def test_two_rounds_of_renewals_even_out(size: int) -> None:
    dispatchers = [f"d{number:03}" for number in range(size)]
    table = renewed(renewed(EMPTY, *dispatchers), *dispatchers, *dispatchers)
    held = counts(table).values()
    assert sum(held) == PARTITION_COUNT
    assert max(held) - min(held) <= 1


def test_partitions_of_a_dead_dispatcher_are_taken_once_its_lease_ran_out() -> None:
    table = renewed(EMPTY, "a", "b", "a", "b")
    held = table.held_by("b")
    table = renewed(table, "a", now=at(4))
    assert set(table.held_by("b")) == set(held)
    table = renewed(table, "a", now=at(5))
    assert counts(table) == {"a": 256}


def test_a_drained_dispatcher_leaves_at_once() -> None:
    table = release(renewed(EMPTY, "a", "b", "a", "b"), "a")
    assert counts(table) == {"b": 128}
    assert table.version == 5
    assert counts(renewed(table, "b")) == {"b": 256}
    assert release(table, "nobody").holders == table.holders


@dataclass
class Dispatcher:
    """What a dispatcher believes it holds, and until when; it may act on nothing else."""

    name: str
    partitions: frozenset[int] = frozenset()
    lease_end: datetime = NOW
    live: bool = True


@dataclass
class Cluster:
    table: PartitionTable = EMPTY
    now: datetime = NOW
    dispatchers: dict[int, Dispatcher] = field(default_factory=dict)

    def renew(self, number: int) -> None:
        dispatcher = self.dispatchers.setdefault(number, Dispatcher(f"d{number}"))
        self.table = renew(self.table, dispatcher.name, self.now + LEASE, self.now)
        dispatcher.partitions = frozenset(self.table.held_by(dispatcher.name))
        dispatcher.lease_end = self.now + LEASE

    def drain(self, number: int) -> None:
        dispatcher = self.dispatchers.pop(number, None)
        if dispatcher is not None:
            self.table = release(self.table, dispatcher.name)

    def check(self) -> None:
        claims = [
            partition
            for dispatcher in self.dispatchers.values()
            if dispatcher.lease_end > self.now
            for partition in dispatcher.partitions
        ]
        assert len(claims) == len(set(claims)), "two dispatchers act on one partition"
        assert set(self.table.holders.values()) <= set(self.table.leases)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("renew"), st.integers(0, 5)),
        st.tuples(st.just("drain"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(1, 7)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(STEPS)
def test_no_partition_is_ever_held_twice_and_all_are_soon_shared_evenly(steps: list[tuple[str, int]]) -> None:
    cluster = Cluster()
    for step, number in steps:
        match step:
            case "renew":
                cluster.renew(number)
            case "drain":
                cluster.drain(number)
            case _:
                cluster.now += number * SECOND
        cluster.check()
    # Whoever is left renews in step, once the dead are out.
    cluster.now += LEASE
    live = [0, *sorted(set(cluster.dispatchers) - {0})]
    for _ in range(3):
        for number in live:
            cluster.renew(number)
            cluster.check()
    held = counts(cluster.table).values()
    assert (len(held), sum(held)) == (len(live), PARTITION_COUNT)
    assert max(held) - min(held) <= 1
