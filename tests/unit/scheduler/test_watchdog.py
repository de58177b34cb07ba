"""The watchdog: what it shows, what it mends, and that it says each thing once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from services.scheduler.domain.partitions import PartitionTable, renew
from services.scheduler.testing.memory_partition_store import MemoryPartitionStore
from services.scheduler.usecases.watchdog import Overdue, Place, Watchdog
from tests.support.scheduler_values import NOW, SECOND
from tests.support.scheduler_world import World

MINUTE = timedelta(minutes=1)


class Records:
    """What lies, as a test says; for jobs, what the world has."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lying: dict[Place, Overdue] = {}

    async def overdue(self, now: datetime, most: int) -> Mapping[Place, Overdue]:
        due = [job.next_due_time for job in self._world.jobs.jobs.values() if job.next_due_time is not None]
        late = sorted(time for time in due if time <= now)
        return {Place.JOB: Overdue(len(late), late[0] if late else None)} | self.lying

    async def partitions_of_overdue_jobs(self, among: Collection[int], before: datetime, most: int) -> frozenset[int]:
        late = [job for job in self._world.jobs.jobs.values() if job.next_due_time and job.next_due_time <= before]
        return frozenset(job.partition for job in late if job.partition in among)


class Seen:
    """Implements `WatchdogObserver`."""

    def __init__(self) -> None:
        self.overdue: Mapping[Place, Overdue] = {}
        self.unowned = -1
        self.fires = 0

    def found(self, overdue: Mapping[Place, Overdue], now: datetime) -> None:
        self.overdue = overdue

    def partitions(self, unowned: int) -> None:
        self.unowned = unowned

    def repaired(self, fires: int) -> None:
        self.fires += fires


class Bench:
    """A watchdog over a world in memory."""

    def __init__(self) -> None:
        self.world = World()
        self.records = Records(self.world)
        self.partitions = MemoryPartitionStore()
        self.seen = Seen()
        self.watchdog = Watchdog(self.records, self.partitions, self.world.acquire, self.seen, self.world.clock)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_fire_that_nobody_asked_for_is_materialized_and_comes_by_the_poll_path(bench: Bench) -> None:
    world = bench.world
    job = await world.job()
    await world.advance(MINUTE + 5 * SECOND)
    assert await bench.watchdog.run_once() == 0, "a dispatcher may still come"
    assert bench.seen.overdue[Place.JOB].count == 1
    await world.advance(6 * SECOND)
    assert (await bench.watchdog.run_once(), bench.seen.fires) == (1, 1)
    assert (await bench.watchdog.run_once(), bench.seen.fires) == (0, 1)
    await world.advance(3 * SECOND)
    (granted,) = (await world.poll()).granted
    assert granted.execution.job_id == job.job_id


async def test_a_dispatcher_that_waits_for_room_on_the_stream_is_not_passed_by(bench: Bench) -> None:
    await bench.partitions.write(renew(PartitionTable({}, {}), "dispatcher-1", NOW + 10 * MINUTE, NOW), 0)
    job = await bench.world.job()
    await bench.world.advance(3 * MINUTE)
    assert (await bench.watchdog.run_once(), bench.seen.overdue[Place.JOB].count) == (0, 1)
    assert bench.world.fires(job) == {}


async def test_two_replicas_mend_a_fire_once(bench: Bench) -> None:
    world = bench.world
    job = await world.job()
    await world.advance(MINUTE + 11 * SECOND)
    other = Watchdog(bench.records, bench.partitions, world.acquire, Seen(), world.clock)
    world.at("executions.insert_new.before", other.run_once)
    await bench.watchdog.run_once()
    world.check_happened()
    assert len(world.fires(job)) == 1


async def test_partitions_of_dispatchers_that_live_are_owned(bench: Bench) -> None:
    await bench.watchdog.run_once()
    assert bench.seen.unowned == 256
    table = renew(PartitionTable({}, {}), "dispatcher-1", NOW + 5 * SECOND, NOW)
    await bench.partitions.write(table, 0)
    await bench.watchdog.run_once()
    assert bench.seen.unowned == 0
    await bench.world.advance(6 * SECOND)
    await bench.watchdog.run_once()
    assert bench.seen.unowned == 256, "its lease is over"


async def test_what_lies_is_told_when_it_begins_and_when_it_is_over(bench: Bench) -> None:
    await bench.partitions.write(renew(PartitionTable({}, {}), "dispatcher-1", NOW + MINUTE, NOW), 0)
    bench.records.lying = {Place.LEASED: Overdue(3, NOW - 30 * SECOND)}
    with capture_logs() as lines:
        await bench.watchdog.run_once()
        await bench.watchdog.run_once()
        bench.records.lying = {}
        await bench.watchdog.run_once()
    assert [(line["event"], line["place"]) for line in lines] == [
        ("watchdog.overdue", "LEASED"),
        ("watchdog.over", "LEASED"),
    ]
    assert (lines[0]["count"], lines[0]["oldest_seconds"]) == (3, 30.0)


async def test_a_moment_of_lying_is_shown_and_not_told(bench: Bench) -> None:
    await bench.partitions.write(renew(PartitionTable({}, {}), "dispatcher-1", NOW + MINUTE, NOW), 0)
    bench.records.lying = {Place.DISPATCHED: Overdue(1, NOW - SECOND)}
    with capture_logs() as lines:
        await bench.watchdog.run_once()
    assert (lines, bench.seen.overdue[Place.DISPATCHED].count) == ([], 1)
