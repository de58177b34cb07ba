"""Partition leases: kept by renewal, lost on time, given back."""

from datetime import timedelta

import pytest

from libs.common.errors import UnavailableError
from libs.common.testing.fake_clock import FakeClock
from services.dispatcher.usecases.partitions import Partitions
from tests.unit.dispatcher.fake_ports import FakeScheduler


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def scheduler(clock: FakeClock) -> FakeScheduler:
    return FakeScheduler(clock)


@pytest.fixture
def partitions(scheduler: FakeScheduler, clock: FakeClock) -> Partitions:
    return Partitions(scheduler, clock, lease_seconds=6)


async def test_nothing_is_held_before_the_first_lease(partitions: Partitions) -> None:
    assert partitions.held() == ()
    assert partitions.check() == "no partition lease yet"


async def test_lease_holds_for_its_time_and_no_longer(partitions: Partitions, clock: FakeClock) -> None:
    await partitions.renew()
    await clock.advance(5.9)
    assert partitions.held() == (0, 1)
    assert partitions.check() is None
    await clock.advance(0.1)
    assert partitions.held() == ()
    assert partitions.check() == "the partition lease has run out"


async def test_failed_renewal_keeps_the_old_lease_until_it_ends(
    partitions: Partitions, scheduler: FakeScheduler, clock: FakeClock
) -> None:
    await partitions.renew()
    scheduler.available = False
    await clock.advance(3)
    with pytest.raises(UnavailableError):
        await partitions.renew()
    assert partitions.held() == (0, 1)
    await clock.advance(3)
    assert partitions.held() == ()
    scheduler.available = True
    scheduler.partitions = (5,)
    await partitions.renew()
    assert partitions.held() == (5,)


async def test_wall_clock_step_does_not_bend_a_lease(partitions: Partitions, clock: FakeClock) -> None:
    await partitions.renew()
    clock.step_wall(timedelta(hours=-1))
    await clock.advance(5)
    assert partitions.held() == (0, 1)


async def test_share_of_none_is_a_share(partitions: Partitions, scheduler: FakeScheduler) -> None:
    scheduler.partitions = ()
    await partitions.renew()
    assert (partitions.held(), partitions.check()) == ((), None)


async def test_renewal_shows_the_schedulers_clock(partitions: Partitions, scheduler: FakeScheduler) -> None:
    scheduler.ahead = timedelta(seconds=-2)
    await partitions.renew()
    assert partitions.clock_offset() == timedelta(seconds=-2)


async def test_release_gives_back_and_survives_an_absent_scheduler(
    partitions: Partitions, scheduler: FakeScheduler
) -> None:
    await partitions.renew()
    scheduler.available = False
    await partitions.release()
    assert partitions.held() == ()
    scheduler.available = True
    await partitions.release()
    assert scheduler.released
