"""Executions that callers ask for: once a key, and beside what the job does by itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from punctual.v1 import execution_pb2
from punctual.v1 import job_service_pb2 as pb

from libs.common.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from services.scheduler.adapters.rpc.job_service import JobService
from services.scheduler.domain.execution import Cause, ExecutionState, Phase, StoredResponse
from services.scheduler.domain.job import JobState
from services.scheduler.usecases.caller import Caller, OrgScope
from tests.support.scheduler_values import CALLER, NOW, at, once
from tests.support.scheduler_world import Death, World

S = ExecutionState


async def test_a_requested_execution_is_delivered_at_once(world: World) -> None:
    job = await world.job(schedule=once(at(3600)))
    execution = await world.requests.run(CALLER, job.job_id)
    assert (execution.cause, execution.state, execution.phase) == (Cause.MANUAL, S.READY, Phase.WAITING)
    assert (execution.fire_time, execution.due_time, execution.exclusive) == (NOW, NOW, False)
    assert world.nudge.notified == [NOW]
    assert await world.delivered() == [execution.execution_id]
    assert (await world.run(execution.execution_id)).state is S.SUCCEEDED
    # The job goes on with its own fire.
    assert world.job_state(job) is JobState.ACTIVE
    assert world.fires(job) == {}


async def test_it_comes_by_the_poll_path_when_no_tick_takes_it(world: World) -> None:
    job = await world.job()
    execution = await world.requests.run(CALLER, job.job_id)
    (granted,) = (await world.poll()).granted
    assert granted.execution.execution_id == execution.execution_id


async def test_each_call_without_a_key_starts_one(world: World) -> None:
    job = await world.job()
    ids = {(await world.requests.run(CALLER, job.job_id)).execution_id for _ in range(3)}
    assert len(ids) == 3


async def test_a_key_starts_one_however_often_it_is_used(world: World) -> None:
    job, other = await world.job(), await world.job()
    first = await world.requests.run(CALLER, job.job_id, idempotency_key="k")
    await world.run(first.execution_id)
    await world.advance(5)
    again = await world.requests.run(CALLER, job.job_id, idempotency_key="k")
    assert (again.execution_id, again.state) == (first.execution_id, S.SUCCEEDED)
    assert again.fire_time == first.fire_time
    assert (await world.requests.run(CALLER, job.job_id, idempotency_key="l")).execution_id != first.execution_id
    assert (await world.requests.run(CALLER, other.job_id, idempotency_key="k")).job_id == other.job_id


async def test_calls_at_once_under_one_key_start_one(world: World) -> None:
    job = await world.job()

    async def slow(_: str) -> None:
        await asyncio.sleep(0)

    world.on_checkpoint = slow
    executions = await asyncio.gather(*(world.requests.run(CALLER, job.job_id, idempotency_key="k") for _ in range(5)))
    assert len({execution.execution_id for execution in executions}) == 1
    assert len(world.executions.executions) == 1
    assert len(world.executions.events) == 1


async def test_what_is_run_is_shown_without_an_answer_even_if_it_has_ended_by_then(world: World) -> None:
    job = await world.job()

    async def run_to_its_end() -> None:
        (execution_id,) = await world.delivered()
        report = world.report_of(await world.begun(execution_id))
        await world.reports([replace(report, response=StoredResponse(200, body=b"{}", stored_size_bytes=2))])

    world.at("executions.insert_new.after", run_to_its_end)
    service = JobService(
        SimpleNamespace(request=world.requests), SimpleNamespace(authenticate=AsyncMock(return_value=CALLER))
    )
    shown = await service.RunJob(pb.RunJobRequest(job_id=job.job_id), AsyncMock())
    assert shown.state == execution_pb2.Execution.STATE_SUCCEEDED
    assert not shown.response.body


@pytest.mark.parametrize("checkpoint", ["executions.insert_new.before", "executions.insert_new.after"])
async def test_a_call_that_died_is_repeated_under_its_key(world: World, checkpoint: str) -> None:
    job = await world.job()
    world.die_at(checkpoint)
    with pytest.raises(Death):
        await world.requests.run(CALLER, job.job_id, idempotency_key="k")
    await world.requests.run(CALLER, job.job_id, idempotency_key="k")
    assert len(world.executions.executions) == 1


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.ACTIVE])
async def test_a_job_that_is_not_active_runs_only_when_asked_for(world: World, state: JobState) -> None:
    job = await world.job()
    world.jobs._jobs[job.job_id] = replace(job, state=state)
    with pytest.raises(FailedPreconditionError) as raised:
        await world.requests.run(CALLER, job.job_id)
    assert raised.value.reason == "WRONG_JOB_STATE"
    if state is JobState.DELETED:
        with pytest.raises(FailedPreconditionError):
            await world.requests.run(CALLER, job.job_id, allow_inactive=True)
        return
    execution = await world.requests.run(CALLER, job.job_id, allow_inactive=True)
    assert (await world.run(execution.execution_id)).state is S.SUCCEEDED


async def test_a_bad_key_or_a_job_of_others_is_refused(world: World) -> None:
    job = await world.job()
    for key in ("x" * 129, "a b", "ü", "\n"):
        with pytest.raises(InvalidArgumentError) as raised:
            await world.requests.run(CALLER, job.job_id, idempotency_key=key)
        assert raised.value.violations[0].field == "idempotency_key"
    with pytest.raises(NotFoundError):
        await world.requests.run(Caller("c", OrgScope("org-b"), frozenset()), job.job_id, idempotency_key="k")
    assert not world.executions.executions


async def test_an_execution_that_ended_is_repeated_once_a_key(world: World) -> None:
    job = await world.job(schedule=once(at(1)))
    await world.advance(1)
    (execution_id,) = await world.delivered()
    with pytest.raises(FailedPreconditionError) as raised:
        await world.requests.retry(CALLER, execution_id)
    assert raised.value.reason == "EXECUTION_NOT_FINAL"
    await world.run(execution_id, 404)
    await world.advance(60)
    again = await world.requests.retry(CALLER, execution_id, idempotency_key="k")
    assert (again.cause, again.retried_execution_id, again.slot_time) == (Cause.RETRY_REQUEST, execution_id, at(1))
    assert (await world.run(again.execution_id)).state is S.SUCCEEDED
    assert (await world.requests.retry(CALLER, execution_id, idempotency_key="k")).execution_id == again.execution_id
    assert world.state(execution_id)[0] is S.FAILED
    assert world.job_state(job) is JobState.COMPLETED
