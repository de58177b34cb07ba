"""One org's backlog and another org's few: in looks, in a tick, in a poll, and in what an outage left to catch up."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from libs.common.testing.fake_clock import FakeClock
from services.scheduler.domain.catch_up_pace import CatchUpPace
from services.scheduler.domain.execution import ExecutionState, Phase
from services.scheduler.domain.schedule import Cron, Schedule
from services.scheduler.usecases.org_turns import OrgTurns
from tests.support.scheduler_values import HOUR, MINUTE, NOW, SECOND, a_definition, a_job, an_execution, at, once
from tests.support.scheduler_world import ALL, World


@dataclass(frozen=True)
class Item:
    org_id: str


class Shelf:
    """Items in order, and the looks that were taken at them."""

    def __init__(self, *orgs: tuple[str, int]) -> None:
        self.items = [Item(org) for org, count in orgs for _ in range(count)]
        self.looks: list[tuple[int, Collection[str]]] = []

    async def find(self, limit: int, without_orgs: Collection[str]) -> Sequence[Item]:
        self.looks.append((limit, without_orgs))
        return [item for item in self.items if item.org_id not in without_orgs][:limit]


async def test_without_a_backlog_one_look_is_enough() -> None:
    shelf = Shelf(("a", 50), ("b", 2))
    look = await OrgTurns(FakeClock(NOW)).look(shelf.find, 100)
    assert (look.found, look.full) == (shelf.items, False)
    assert len(shelf.looks) == 1


async def test_a_quarter_of_a_full_look_is_for_those_behind_a_backlog() -> None:
    shelf = Shelf(("a", 5000), ("b", 10))
    look = await OrgTurns(FakeClock(NOW)).look(shelf.find, 100)
    assert Counter(item.org_id for item in look.found) == {"a": 90, "b": 10}
    assert look.full


async def test_a_second_and_a_third_backlog_are_looked_past_as_well() -> None:
    shelf = Shelf(("a", 5000), ("b", 5000), ("c", 5000), ("d", 3))
    look = await OrgTurns(FakeClock(NOW)).look(shelf.find, 120)
    counts = Counter(item.org_id for item in look.found)
    assert (counts["a"], counts["b"], counts["c"], counts["d"]) == (95, 15, 7, 3)
    assert len(look.found) <= 120


async def test_backlogs_are_looked_past_once_a_second() -> None:
    shelf, clock = Shelf(("a", 5000), ("b", 10)), FakeClock(NOW)
    turns = OrgTurns(clock)
    for _ in range(5):
        await turns.look(shelf.find, 100)
        await clock.advance(0.3)
    assert [bool(without) for _, without in shelf.looks] == [False, True, False, False, False, False, True]


async def test_a_small_look_is_never_divided_into_nothing() -> None:
    shelf = Shelf(("a", 9), ("b", 9))
    for limit in (1, 2, 3, 4, 5):
        look = await OrgTurns(FakeClock(NOW)).look(shelf.find, limit)
        assert 1 <= len(look.found) <= limit
        assert look.full


async def _backlog(world: World, count: int) -> None:
    """A thousand and more fires of one org, and two of another org that came due after them."""
    jobs = [a_job(a_definition(schedule=once(at(1))), org_id="big") for _ in range(count)]
    jobs += [a_job(a_definition(schedule=once(at(20))), org_id="small") for _ in range(2)]
    await world.jobs.insert_new(jobs)
    await world.advance(30)


async def test_a_tick_hands_over_the_others_beside_a_backlog(world: World) -> None:
    await _backlog(world, 1000)
    batch = await world.tick(limit=100)
    assert Counter(execution.org_id for execution in batch.executions) == {"big": 73, "small": 2}
    assert batch.more


async def test_a_poll_grants_the_others_beside_a_backlog(world: World) -> None:
    await _backlog(world, 300)
    while (await world.tick(limit=400)).more:
        pass
    await world.advance(10)
    # A poll takes a random half of what it finds.
    random.seed(1)
    granted: Counter[str] = Counter()
    for _ in range(4):
        batch = await world.poll(limit=20)
        granted.update(item.execution.org_id for item in batch.granted)
        await world.advance(1)
    assert granted["small"] == 2
    assert granted["big"] >= 40


async def test_waits_of_others_are_taken_beside_a_backlog(world: World) -> None:
    waiting = [an_execution(org_id="big", phase=Phase.WAITING, wake_time=at(1)) for _ in range(300)]
    waiting.append(an_execution(org_id="small", phase=Phase.WAITING, wake_time=at(2)))
    await world.executions.insert_new(waiting)
    await world.advance(3)
    batch = await world.tick(limit=40)
    assert Counter(execution.org_id for execution in batch.executions) == {"big": 30, "small": 1}


async def test_fires_on_time_go_before_those_that_an_outage_left(world: World) -> None:
    missed = [a_job(a_definition(schedule=Schedule(Cron("0 * * * *")))) for _ in range(50)]
    on_time = a_job(a_definition(schedule=once(at(7230))), org_id="other")
    await world.jobs.insert_new([*missed, on_time])
    await world.advance(7230)
    batch = await world.tick(limit=20)
    assert batch.executions[0].job_id == on_time.job_id
    assert batch.more


async def test_what_an_outage_left_runs_at_the_pace_of_the_installation(world: World) -> None:
    await world.jobs.insert_new([a_job(a_definition(schedule=Schedule(Cron("0 * * * *")))) for _ in range(450)])
    await world.advance(HOUR + 30 * MINUTE)
    while (await world.tick()).more:
        pass
    for _ in range(5):
        await world.advance(1)
        await world.tick()
    starts = [
        execution.available_time - (NOW + HOUR + 30 * MINUTE)
        for execution in world.executions.executions.values()
        if execution.state is ExecutionState.READY and execution.available_time
    ]
    # One runs at once, that is at its own due time; the others a hundred in each second.
    seconds = Counter(max(start, timedelta(0)) // SECOND for start in starts)
    assert seconds == {0: 100, 1: 100, 2: 100, 3: 100, 4: 50}
    assert {execution.phase for execution in world.executions.executions.values()} == {Phase.DISPATCHED}


async def test_a_repeated_tick_gives_a_missed_fire_no_second_record(world: World) -> None:
    job = await world.job(schedule=Schedule(Cron("0 * * * *")))
    other = await world.job(schedule=Schedule(Cron("0 * * * *")))
    await world.advance(HOUR + 2 * MINUTE)

    async def tick() -> None:
        await world.tick()

    world.at("jobs.advance.before", tick)
    await world.tick()
    assert (len(world.fires(job)), len(world.fires(other))) == (1, 1)


def test_the_orgs_share_the_pace() -> None:
    pace = CatchUpPace(10)
    big = [pace.slot("big", NOW) for _ in range(1000)]
    small = [pace.slot("small", NOW) for _ in range(5)]
    assert [slot - NOW for slot in big[:3]] == [number * SECOND / 10 for number in range(3)]
    assert [slot - NOW for slot in small] == [number * SECOND / 5 for number in range(5)]


def test_a_lane_that_is_free_again_begins_now() -> None:
    pace = CatchUpPace(10)
    assert pace.slot("a", NOW) == pace.slot("b", NOW) == NOW
    later = NOW + HOUR
    assert [pace.slot("a", later), pace.slot("a", later)] == [later, later + SECOND / 10]


async def test_a_call_never_looks_so_rarely_that_it_may_notice_late(world: World) -> None:
    call = asyncio.create_task(world.acquire(ALL, SECOND, 10, 20.0))
    await world.job(schedule=once(at(1.01)))
    await world.advance(0.249)
    assert not call.done()
    await world.advance(0.001)
    assert [execution.fire_time for execution in (await call).executions] == [at(1.01)]
    assert not (await world.acquire(ALL, SECOND / 4, 10, 20.0)).executions


async def test_unreadable_executions_do_not_fill_every_poll(world: World) -> None:
    unreadable = [a_job(a_definition(schedule=once(at(1)))) for _ in range(20)]
    await world.jobs.insert_new(unreadable)
    world.secrets.unreadable.update(job.job_id for job in unreadable)
    await world.advance(1)
    await world.tick()
    sound = await world.job(schedule=once(at(2)))
    await world.advance(1)
    await world.tick()
    await world.advance(10)
    granted: list[str] = []
    for _ in range(6):
        granted += [item.execution.job_id for item in (await world.poll(limit=5)).granted]
    assert granted == [sound.job_id]
    states = {execution.state for execution in world.executions.executions.values()}
    assert states == {ExecutionState.READY, ExecutionState.RUNNING}
