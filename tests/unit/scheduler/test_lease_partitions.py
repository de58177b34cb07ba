"""Partition leases of dispatchers that renew at once."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.errors import AbortedError
from libs.common.testing.fake_clock import FakeClock
from services.scheduler.domain.job import PARTITION_COUNT
from services.scheduler.domain.partitions import PartitionTable, renew
from services.scheduler.testing.memory_partition_store import MemoryPartitionStore
from services.scheduler.usecases.lease_partitions import MAX_TRIES, LeasePartitions
from tests.support.scheduler_values import NOW, SECOND

LEASE = 5 * SECOND


async def yields(_: str) -> None:
    await asyncio.sleep(0)


async def test_dispatchers_that_renew_at_once_share_evenly_and_hold_nothing_twice() -> None:
    leases = LeasePartitions(MemoryPartitionStore(yields), FakeClock(NOW))
    names = [f"d{number}" for number in range(5)]
    for _ in range(3):
        held = await asyncio.gather(*(leases(name, LEASE) for name in names))
    claims = [partition for lease in held for partition in lease.partitions]
    assert sorted(claims) == list(range(PARTITION_COUNT))
    assert {len(lease.partitions) for lease in held} <= {51, 52}
    assert {lease.dispatcher_count for lease in held} == {5}
    assert {lease.expire_time for lease in held} == {NOW + LEASE}


async def test_a_dead_dispatchers_partitions_are_taken_over_within_its_lease() -> None:
    clock = FakeClock(NOW)
    leases = LeasePartitions(MemoryPartitionStore(), clock)
    for name in ("a", "b", "a", "b"):
        await leases(name, LEASE)
    await clock.advance(4)
    assert len((await leases("a", LEASE)).partitions) == 128
    await clock.advance(1)
    assert len((await leases("a", LEASE)).partitions) == PARTITION_COUNT


async def test_a_draining_dispatcher_gives_all_back() -> None:
    leases = LeasePartitions(MemoryPartitionStore(), FakeClock(NOW))
    await leases("a", LEASE)
    await leases.release("a")
    await leases.release("a")
    assert len((await leases("b", LEASE)).partitions) == PARTITION_COUNT


class CountedStore(MemoryPartitionStore):
    """A store that counts its reads."""

    reads = 0

    async def read(self) -> PartitionTable:
        self.reads += 1
        return await super().read()


async def test_a_replica_that_writes_the_table_alone_does_not_read_it() -> None:
    store, clock = CountedStore(), FakeClock(NOW)
    mine, other = LeasePartitions(store, clock), LeasePartitions(store, clock)
    for _ in range(5):
        await mine("a", LEASE)
    assert store.reads == 2
    await other("b", LEASE)
    assert len((await mine("a", LEASE)).partitions) == 128
    assert store.reads == 4
    # By turns, as clients balance over replicas: each reads first, and no write fails.
    for replica in (other, mine, other, mine):
        assert len((await replica("b", LEASE)).partitions) == 128
    assert store.reads == 8
    for _ in range(5):
        await mine("a", LEASE)
    assert store.reads == 9


async def test_a_release_counts_wherever_the_lease_was_written() -> None:
    store, clock = CountedStore(), FakeClock(NOW)
    mine, other = LeasePartitions(store, clock), LeasePartitions(store, clock)
    for _ in range(3):
        await mine("a", LEASE)
    await other("b", LEASE)
    await mine.release("b")
    assert set((await store.read()).leases) == {"a"}


class RacedStore(MemoryPartitionStore):
    """A store in which somebody else writes right before each write."""

    tries = 0

    async def write(self, table: PartitionTable, expected_version: int) -> bool:
        self.tries += 1
        present = await self.read()
        await super().write(renew(present, f"other-{self.tries}", NOW + LEASE, NOW), present.version)
        return await super().write(table, expected_version)


async def test_endless_races_give_up() -> None:
    store = RacedStore()
    with pytest.raises(AbortedError) as raised:
        await LeasePartitions(store, FakeClock(NOW))("a", LEASE)
    assert (raised.value.reason, store.tries) == ("PARTITION_CONTENTION", MAX_TRIES)
