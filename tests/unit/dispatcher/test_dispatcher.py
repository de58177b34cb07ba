"""The duties together, over fake ports and a clock that stands still: when do entries arrive on the stream?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from libs.common.rpc.health import READINESS, HealthReporter
from libs.common.testing.fake_clock import FakeClock, settle
from services.dispatcher.app import Duties
from services.dispatcher.settings import DispatcherSettings
from tests.unit.dispatcher.fake_ports import T0, FakeScheduler, FakeStream, entry

Start = Callable[..., Duties]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(T0)


@pytest.fixture
def scheduler(clock: FakeClock) -> FakeScheduler:
    return FakeScheduler(clock)


@pytest.fixture
def stream(clock: FakeClock) -> FakeStream:
    return FakeStream(clock)


@pytest.fixture
def stopping() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def start(
    scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock, stopping: asyncio.Event
) -> AsyncIterator[Start]:
    running: list[asyncio.Task[None]] = []

    def run(**settings: object) -> Duties:
        duties = Duties.over(scheduler, stream, clock, DispatcherSettings(**settings))
        health = HealthReporter()
        duties.add_checks(health)
        running.append(asyncio.create_task(duties.run(stopping, health)))
        return duties

    yield run
    stopping.set()
    for task in running:
        while not task.done():
            await clock.advance(1)
        await task


async def test_entry_arrives_its_lead_before_it_is_due(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    scheduler.give(entry("a", 1.5))
    start()
    await clock.advance(0.9)
    assert stream.batches == []
    await clock.advance(0.15)
    [(when, names)] = stream.batches
    assert names == ["a"]
    assert timedelta(seconds=0.95) <= when - T0 <= timedelta(seconds=1)


@pytest.mark.parametrize(("count", "lead"), [(1, 0.501), (400, 0.9), (3_000, 1.5)])
async def test_many_entries_arrive_earlier_up_to_a_bound(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, *, count: int, lead: float
) -> None:
    scheduler.give(*(entry(f"e{n}", 2) for n in range(count)))
    start(acquire_batch=5_000, max_stream_backlog=5_000)
    await scheduler.clock.advance(2)
    assert len(stream.delivered) == count
    first, _ = stream.batches[0]
    early = T0 + timedelta(seconds=2) - first
    assert timedelta(seconds=lead - 0.05) <= early <= timedelta(seconds=lead)


async def test_entries_that_come_while_few_wait_bring_the_delivery_forward(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    scheduler.give(entry("alone", 2))
    start()
    await clock.advance(0.6)
    scheduler.give(*(entry(f"e{n}", 2) for n in range(400)))
    await clock.advance(0.7)
    assert len(stream.delivered) == 401


async def test_earlier_arrival_wakes_a_waiting_delivery(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    scheduler.give(entry("later", 2))
    scheduler.give(entry("now", 0))
    start()
    await clock.advance(0.1)
    assert stream.delivered == ["now"]


async def test_entries_due_together_share_a_batch(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    scheduler.give(*(entry(f"e{n}", 1 + n / 1000) for n in range(5)), entry("apart", 1.5))
    start()
    await clock.advance(2)
    assert [names for _, names in stream.batches] == [["e0", "e1", "e2", "e3", "e4"], ["apart"]]


async def test_due_time_is_told_by_the_schedulers_clock(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    scheduler.ahead = timedelta(seconds=10)
    start()
    await clock.advance(0.2)
    scheduler.give(entry("a", 12))
    await clock.advance(1.2)
    assert stream.delivered == []
    await clock.advance(0.5)
    assert stream.delivered == ["a"]


async def test_full_stream_holds_delivery_and_then_intake(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    # Five on the stream and a batch of eight held: then the intake stops as well.
    scheduler.give(*(entry(f"e{n}") for n in range(13)), more=True)
    start(max_stream_backlog=5, max_held=10, acquire_batch=8)
    await clock.advance(1)
    assert len(stream.delivered) == 5
    calls = len(scheduler.calls)
    await clock.advance(5)
    assert (len(stream.delivered), len(scheduler.calls)) == (5, calls)
    stream.taken = 5
    await clock.advance(0.5)
    assert len(stream.delivered) == 10
    assert len(scheduler.calls) > calls


async def test_an_org_with_little_gets_past_a_backlog_that_fills_the_stream(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    scheduler.give(*(entry(f"e{n}") for n in range(9)), more=True)
    start(max_stream_backlog=5, max_held=20, acquire_batch=8)
    await clock.advance(1)
    assert len(stream.delivered) == 5
    scheduler.give(entry("small", org="small"))
    await clock.advance(0.5)
    stream.taken = 1
    await clock.advance(0.5)
    assert stream.delivered[5:] == ["small"]


async def test_nothing_is_dropped_while_the_stream_is_merely_full(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    scheduler.give(*(entry(f"e{n}") for n in range(3)))
    duties = start(max_stream_backlog=1)
    await clock.advance(30)
    stream.taken = 1
    await clock.advance(1)
    stream.taken = 2
    await clock.advance(1)
    assert (stream.delivered, duties.deliver.dropped) == (["e0", "e1", "e2"], 0)


async def test_entries_survive_a_short_absence_of_redis(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    stream.available = False
    scheduler.give(entry("a", 0.5))
    duties = start()
    await clock.advance(1.5)
    stream.available = True
    await clock.advance(2)
    assert (stream.delivered, duties.deliver.dropped) == (["a"], 0)


async def test_entries_overdue_by_the_grace_are_left_to_the_poll_path(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    stream.available = False
    scheduler.give(entry("a", 0), entry("b", 60))
    duties = start()
    await clock.advance(5)
    assert duties.deliver.dropped == 1
    stream.available = True
    await clock.advance(60)
    assert (stream.delivered, duties.deliver.dropped) == (["b"], 1)


async def test_acquiring_goes_on_while_redis_is_away(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    stream.available = False
    start()
    await clock.advance(5)
    assert len(scheduler.calls) >= 3


async def test_starts_before_the_scheduler_and_waits_for_it(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock
) -> None:
    scheduler.available = False
    scheduler.give(entry("a", 0))
    start()
    await clock.advance(30)
    assert scheduler.calls == []
    scheduler.available = True
    await clock.advance(3)
    assert stream.delivered == ["a"]


async def test_only_leased_partitions_are_asked_for(start: Start, scheduler: FakeScheduler, clock: FakeClock) -> None:
    scheduler.partitions = ()
    start()
    await clock.advance(3)
    assert scheduler.calls == []
    scheduler.partitions = (3, 7)
    await clock.advance(3)
    assert {call.partitions for call in scheduler.calls} == {(3, 7)}


async def test_partitions_that_are_taken_over_are_asked_for_at_the_renewal(
    start: Start, scheduler: FakeScheduler, clock: FakeClock
) -> None:
    start(partition_lease_seconds=3, poll_wait_seconds=5)
    await clock.advance(0.5)
    scheduler.partitions = (0, 1, 2)
    # Renewed once a second.
    await clock.advance(0.6)
    assert [call.partitions for call in scheduler.calls if call.wait_seconds > 0.1] == [(0, 1), (0, 1, 2)]


async def test_while_a_renewal_is_late_calls_are_short(
    start: Start, scheduler: FakeScheduler, clock: FakeClock
) -> None:
    start(partition_lease_seconds=3, poll_wait_seconds=5)
    await clock.advance(0.5)
    scheduler.renews.clear()
    await clock.advance(1.1)
    before = len(scheduler.calls)
    await clock.advance(0.5)
    assert {call.wait_seconds for call in scheduler.calls[before:]} == {0.1}
    scheduler.renews.set()
    await clock.advance(0.2)
    assert scheduler.calls[-1].wait_seconds > 0.4


async def test_scheduler_that_does_not_wait_is_not_asked_in_a_hot_loop(
    start: Start, scheduler: FakeScheduler, clock: FakeClock
) -> None:
    scheduler.waits = False
    start()
    await clock.advance(1)
    assert 1 <= len(scheduler.calls) <= 21


async def test_stopping_hands_everything_over_at_once_and_gives_partitions_back(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock, stopping: asyncio.Event
) -> None:
    scheduler.give(entry("now", 0), entry("later", 1.9))
    start()
    await clock.advance(0.1)
    assert stream.delivered == ["now"]
    stopping.set()
    # Once the call in progress has ended.
    await clock.advance(1.8)
    assert stream.delivered == ["now", "later"]
    assert scheduler.released


async def test_acquire_in_progress_is_kept_when_stopping(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock, stopping: asyncio.Event
) -> None:
    start()
    await clock.advance(0.1)
    assert scheduler.calls
    stopping.set()
    await settle()
    scheduler.give(entry("last", 1.9))
    await clock.advance(1)
    assert stream.delivered == ["last"]


async def test_stopping_without_redis_ends_and_counts_what_the_poll_path_must_find(
    start: Start, scheduler: FakeScheduler, stream: FakeStream, clock: FakeClock, stopping: asyncio.Event
) -> None:
    stream.available = False
    scheduler.give(entry("a", 1.9))
    duties = start()
    await clock.advance(0.1)
    stopping.set()
    await clock.advance(3)
    assert duties.deliver.dropped == 1
    assert scheduler.released


async def test_readiness_follows_the_scheduler(start: Start, scheduler: FakeScheduler, clock: FakeClock) -> None:
    duties = start()
    health = HealthReporter()
    duties.add_checks(health)

    async def reasons() -> list[str]:
        await health.evaluate()
        return list(health.reasons[READINESS])

    assert await reasons() == ["partitions: no partition lease yet", "acquire: nothing acquired yet"]
    await clock.advance(2)
    assert await reasons() == []
    scheduler.available = False
    await clock.advance(20)
    assert "partitions: the partition lease has run out" in await reasons()
    assert health.reasons["liveness"] == ()
    scheduler.available = True
    await clock.advance(3)
    assert await reasons() == []
