"""The tick: each fire one record, whoever ticks at once and whichever line a process dies on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from services.scheduler.domain.execution import ExecutionState, Phase
from services.scheduler.domain.job import CatchUpMode, CatchUpPolicy, JobState
from services.scheduler.domain.schedule import Cron, Schedule
from tests.support.scheduler_values import MINUTE, NOW, SCOPE, SECOND, a_definition, a_job, at, once
from tests.support.scheduler_world import ALL, HORIZON, Death, World


async def test_a_fire_is_materialized_ahead_and_delivered_once(world: World) -> None:
    job = await world.job()
    assert await world.delivered() == []
    await world.advance(58)
    (execution_id,) = await world.delivered()
    execution = world.execution(execution_id)
    assert (execution.fire_time, execution.due_time, execution.state) == (at(60), at(60), ExecutionState.READY)
    assert (execution.phase, execution.wake_time, execution.exclusive) == (Phase.DISPATCHED, at(62), True)
    assert world.stored(job).next_fire_time == at(120)
    assert await world.delivered() == []


async def test_two_ticks_over_one_job_make_one_record(world: World) -> None:
    job = await world.job()
    await world.advance(60)
    other: list[list[str]] = []

    async def tick() -> None:
        other.append(await world.delivered())

    world.at("jobs.advance.before", tick)
    mine = await world.delivered()
    # Both deliver it; the second delivery costs one refused beginning.
    assert other == [mine]
    assert list(world.fires(job)) == [at(60)]
    assert world.stored(job).next_fire_time == at(120)
    assert (await world.begin(*mine)).granted
    assert (await world.begin(*mine)).refused[mine[0]].reason == "LEASED"


async def test_many_ticks_at_once_make_one_record_a_fire(world: World) -> None:
    jobs = [await world.job(catch_up=CatchUpPolicy(CatchUpMode.ALL)) for _ in range(3)]

    async def slow(_: str) -> None:
        await asyncio.sleep(0)

    world.on_checkpoint = slow
    await world.advance(600)
    await asyncio.gather(*(world.tick() for _ in range(5)))
    for job in jobs:
        assert list(world.fires(job)) == [at(60 * minute) for minute in range(1, 11)]
        assert world.stored(job).next_fire_time == at(660)


@pytest.mark.parametrize(
    "checkpoint",
    [
        "jobs.find_due.after",
        "executions.insert_new.before",
        "executions.insert_new.after",
        "jobs.advance.before",
        "jobs.advance.after",
        "executions.take_waiting.before",
        "executions.take_waiting.after",
    ],
)
async def test_a_tick_that_dies_anywhere_loses_no_fire_and_doubles_none(world: World, checkpoint: str) -> None:
    job = await world.job()
    await world.advance(60)
    world.die_at(checkpoint)
    with pytest.raises(Death):
        await world.tick()
    delivered = await world.delivered()
    await world.advance(5)
    # What the dead one had taken and not handed over comes by the poll path.
    polled = [granted.execution.execution_id for granted in (await world.poll()).granted]
    assert len(delivered) + len(polled) >= 1
    assert set(delivered) | set(polled) == {execution.execution_id for execution in world.fires(job).values()}
    assert list(world.fires(job)) == [at(60)]
    assert world.stored(job).next_fire_time == at(120)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (CatchUpMode.LATEST, ["COALESCED"] * 4 + ["READY"]),
        (CatchUpMode.ALL, ["READY"] * 5),
        (CatchUpMode.NONE, ["MISSED"] * 5),
    ],
)
async def test_fires_missed_in_an_outage_are_all_on_record(
    world: World, mode: CatchUpMode, expected: list[str]
) -> None:
    job = await world.job(schedule=Schedule(Cron("*/15 * * * *")), catch_up=CatchUpPolicy(mode))
    await world.advance(75 * MINUTE + 120 * SECOND)
    await world.delivered()
    assert world.reasons(job) == expected
    taken = [execution for execution in world.fires(job).values() if execution.state is ExecutionState.READY]
    assert len(taken) == expected.count("READY")
    # Late: the grace counts from now, and they come one after the other.
    starts = [execution.available_time for execution in taken[1:]]
    assert starts == [world.clock.now() + (number + 1) * SECOND / 100 for number in range(len(starts))]
    for execution in taken:
        assert execution.phase is Phase.DISPATCHED
        assert execution.wake_time is not None
        assert execution.wake_time - max(execution.available_time or NOW, world.clock.now()) == 2 * SECOND
    for execution in world.fires(job).values():
        if execution.state is ExecutionState.SKIPPED:
            assert (execution.phase, execution.end_time) == (None, world.clock.now())
            assert execution.expire_time is not None


async def test_a_pass_decides_a_bounded_number_of_fires_and_says_that_there_is_more(world: World) -> None:
    jobs = [await world.job(catch_up=CatchUpPolicy(CatchUpMode.NONE)) for _ in range(20)]
    await world.advance(100 * MINUTE)
    batch = await world.tick(limit=150)
    assert batch.more
    assert 150 <= len(world.executions.executions) <= 250
    passes = 1
    while (batch := await world.tick(limit=150)).more:
        passes += 1
    assert passes > 5
    assert [len(world.fires(job)) for job in jobs] == [100] * 20


async def test_a_flood_of_fires_does_not_hold_up_retries_for_good(world: World) -> None:
    early = await world.job(schedule=once(at(1)))
    await world.advance(1)
    (retried,) = await world.delivered()
    await world.report(await world.begun(retried), 503)
    for _ in range(10):
        await world.job(schedule=once(at(10)))
    await world.advance(10)
    batch = await world.tick(limit=5)
    assert len(batch.executions) <= 5
    assert retried in [execution.execution_id for execution in batch.executions]
    assert batch.more
    assert world.job_state(early) is JobState.ACTIVE


async def test_a_job_whose_schedule_cannot_be_evaluated_stops_alone(world: World) -> None:
    # A zone that a newer time zone database has dropped.
    broken = replace(a_job(a_definition()), next_fire_time=at(30), next_due_time=at(30))
    broken = replace(broken, definition=a_definition(schedule=Schedule(Cron("30 9 * * *"), "Mars/Phobos")))
    await world.jobs.insert_new([broken])
    sound = await world.job()
    await world.advance(60)
    assert len(await world.delivered()) == 1
    stopped = world.stored(broken)
    assert (stopped.state, stopped.state_reason) == (JobState.FAILED, "SCHEDULE_UNUSABLE")
    assert "Mars/Phobos" in stopped.state_note
    assert [(event.object_id, event.method) for event in world.jobs.events] == [(broken.job_id, "job.failed")]
    assert list(world.fires(sound)) == [at(60)]


async def test_a_waiting_call_returns_when_something_near_is_announced(world: World) -> None:
    call = asyncio.create_task(world.acquire(ALL, HORIZON, 10, 20.0))
    await world.advance(1)
    await world.job(schedule=once(at(2)))
    world.nudge.notify(at(60))
    await world.advance(0)
    assert not call.done()
    world.nudge.notify(at(2))
    await world.advance(0)
    assert [execution.fire_time for execution in (await call).executions] == [at(2)]


async def test_a_waiting_call_looks_now_and_then_for_what_it_was_not_told_of(world: World) -> None:
    call = asyncio.create_task(world.acquire(ALL, HORIZON, 10, 20.0))
    await world.advance(7.1)
    # Another replica made it: this one's nudge knows nothing.
    await world.job(schedule=once(at(7.2)))
    await world.advance(0.399)
    assert not call.done()
    await world.advance(0.002)
    assert [execution.fire_time for execution in (await call).executions] == [at(7.2)]
    assert world.clock.sleepers == 0


async def test_an_announcement_for_others_does_not_end_the_call(world: World) -> None:
    call = asyncio.create_task(world.acquire(ALL, HORIZON, 10, 20.0))
    await world.advance(1)
    world.nudge.notify(at(1))
    await world.advance(1)
    assert not call.done()
    await world.advance(18)
    assert not (await call).executions


@pytest.mark.parametrize("wait_seconds", [0.3, 1.0])
async def test_a_waiting_call_that_ends_leaves_the_last_look_to_the_next(world: World, wait_seconds: float) -> None:
    call = asyncio.create_task(world.acquire(ALL, HORIZON, 10, wait_seconds))
    await world.advance(wait_seconds - 0.01)
    await world.job(schedule=once(at(2)))
    assert not call.done()
    await world.advance(0.01)
    # Two looks in a row would show the same, and cost an idle system twice as much.
    assert not (await call).executions
    assert len((await world.acquire(ALL, HORIZON, 10, 1.0)).executions) == 1


async def test_an_announcement_during_the_look_is_not_missed(world: World) -> None:
    async def create() -> None:
        await world.job(schedule=once(at(1)))
        world.nudge.notify(at(1))

    # After the jobs were read, and before the call waits.
    world.at("executions.take_waiting.before", create)
    batch = await asyncio.wait_for(world.acquire(ALL, HORIZON, 10, 1000.0), timeout=5)
    assert len(batch.executions) == 1


async def test_looks_that_find_something_keep_a_pace(world: World) -> None:
    await world.job(schedule=once(at(2)))
    assert len((await world.acquire(ALL, HORIZON, 10, 1.0)).executions) == 1
    await world.job(schedule=once(at(2.1)))
    call = asyncio.create_task(world.acquire(ALL, HORIZON, 10, 1.0))
    await world.advance(0.49)
    assert not call.done()
    await world.job(schedule=once(at(2.2)))
    await world.advance(0.02)
    assert len((await call).executions) == 2


async def test_what_is_near_does_not_wait_for_the_pace(world: World) -> None:
    await world.job(schedule=once(at(2)))
    assert len((await world.acquire(ALL, HORIZON, 10, 1.0)).executions) == 1
    await world.job(schedule=once(at(0.1)))
    # Announced between the calls, and while the second one waits.
    world.nudge.notify(at(0.1))
    assert len((await world.acquire(ALL, HORIZON, 10, 1.0)).executions) == 1
    call = asyncio.create_task(world.acquire(ALL, HORIZON, 10, 1.0))
    await world.advance(0.01)
    assert not call.done()
    await world.job(schedule=once(at(0.2)))
    world.nudge.notify(at(0.2))
    await world.advance(0)
    assert len((await call).executions) == 1


async def test_a_paused_job_does_not_fire(world: World) -> None:
    job = await world.job()
    await world.pause(job)
    await world.advance(10 * MINUTE)
    assert await world.delivered() == []
    assert world.fires(job) == {}


async def test_a_job_that_is_edited_meanwhile_keeps_its_new_cursor(world: World) -> None:
    job = await world.job()
    await world.advance(60)

    async def edit() -> None:
        stored = world.stored(job)
        changed = replace(stored, revision=2, schedule_revision=2, next_fire_time=at(3600), next_due_time=at(3600))
        assert await world.jobs.replace(SCOPE, changed, expected=stored)

    world.at("jobs.advance.before", edit)
    await world.tick()
    assert world.stored(job).next_fire_time == at(3600)
