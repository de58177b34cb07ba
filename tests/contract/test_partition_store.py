"""What the use cases rely on in a partition store, held against the one in memory and the one in MongoDB."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from services.scheduler.adapters.mongo.partition_store import MongoPartitionStore
from services.scheduler.domain.partitions import PartitionTable, release, renew
from services.scheduler.testing.memory_partition_store import MemoryPartitionStore
from services.scheduler.usecases.ports.partition_store import PartitionStore
from tests.support.scheduler_values import NOW, at


@pytest.fixture
def store(in_mongo: bool) -> PartitionStore:
    return MongoPartitionStore() if in_mongo else MemoryPartitionStore()


def table(version: int = 1) -> PartitionTable:
    return PartitionTable({"dispatcher-a.example.com-1": at(5)}, {0: "dispatcher-a.example.com-1", 255: "b$"}, version)


async def test_the_table_is_empty_before_the_first_write(store: PartitionStore) -> None:
    assert await store.read() == PartitionTable({}, {}, 0)


async def test_the_table_is_read_as_it_was_written(store: PartitionStore) -> None:
    assert await store.write(table(), 0)
    assert await store.read() == table()
    assert await store.write(PartitionTable({}, {}, 2), 1)
    assert await store.read() == PartitionTable({}, {}, 2)


@pytest.mark.parametrize("expected_version", [0, 1, 3])
async def test_a_write_loses_against_any_write_since_the_read(store: PartitionStore, expected_version: int) -> None:
    assert await store.write(table(1), 0)
    assert await store.write(table(2), 1)
    assert not await store.write(replace(table(9), leases={}), expected_version)
    assert await store.read() == table(2)


async def test_an_absent_table_has_version_zero_only(store: PartitionStore) -> None:
    assert not await store.write(table(2), 1)
    assert await store.read() == PartitionTable({}, {}, 0)


@pytest.mark.parametrize("version", [0, 1])
async def test_of_writes_at_once_one_wins(store: PartitionStore, version: int) -> None:
    if version:
        await store.write(table(version), 0)
    results = await asyncio.gather(*(store.write(table(version + 1), version) for _ in range(5)))
    assert sum(results) == 1


async def test_what_the_domain_decides_survives_the_store(store: PartitionStore) -> None:
    first = renew(await store.read(), "a", at(5), NOW)
    assert await store.write(first, 0)
    second = renew(await store.read(), "b", at(5), NOW)
    assert await store.write(second, 1)
    third = release(await store.read(), "a")
    assert await store.write(third, 2)
    assert await store.read() == third
    assert third.held_by("a") == ()
