"""A job whose secret does not open: it waits for the key, and ends when none comes."""

from __future__ import annotations

from datetime import timedelta

from services.scheduler.domain.execution import ExecutionState
from services.scheduler.usecases.begin_endings import UNREADABLE_GRACE
from tests.support.scheduler_values import once
from tests.support.scheduler_world import World


async def delivered_to_nobody_who_can_read_it(world: World) -> str:
    job = await world.job(schedule=once(world.clock.now()))
    world.secrets.unreadable.add(job.job_id)
    (execution_id,) = await world.delivered()
    return execution_id


async def test_it_is_not_begun_and_stays_ready_for_a_replica_with_the_key():
    world = World()
    execution_id = await delivered_to_nobody_who_can_read_it(world)
    batch = await world.begin(execution_id)
    assert (batch.granted, batch.refused[execution_id].reason) == ([], "NOT_READY")
    assert world.state(execution_id) == (ExecutionState.READY, "")
    world.secrets.unreadable.clear()
    await world.advance(timedelta(seconds=5))
    assert [granted.execution.execution_id for granted in (await world.poll()).granted] == [execution_id]


async def test_it_fails_with_its_reason_when_no_key_comes():
    world = World()
    execution_id = await delivered_to_nobody_who_can_read_it(world)
    await world.advance(UNREADABLE_GRACE)
    assert not (await world.poll()).granted
    assert world.state(execution_id) == (ExecutionState.FAILED, "SECRET_UNREADABLE")


async def test_others_of_the_same_batch_are_begun():
    world = World()
    unreadable = await delivered_to_nobody_who_can_read_it(world)
    await world.job(schedule=once(world.clock.now()))
    (readable,) = await world.delivered()
    batch = await world.begin(unreadable, readable)
    assert [granted.execution.execution_id for granted in batch.granted] == [readable]
