"""A repetition that finds its work done answers for a write that may be under way still, so it waits for that.

That the wait ends with a majority, and only then, is told by the test of the same name over servers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from services.scheduler.domain.execution import Execution
from services.scheduler.domain.job import Job
from services.scheduler.domain.outcome import Result
from services.scheduler.usecases.audit import JobAudit
from services.scheduler.usecases.cancel_execution import CancelExecution
from services.scheduler.usecases.update_job import UpdateJob
from tests.support.scheduler_values import CALLER, RETENTION, a_definition
from tests.support.scheduler_world import NoFields, World
from tests.support.simulation.processes import AnyInterval

ChangeJob = Callable[[World, Job], Awaitable[object]]
ChangeExecution = Callable[[World, Execution], Awaitable[object]]


async def nothing() -> None:
    """Happen."""


def update(world: World, job: Job) -> Awaitable[object]:
    audit = JobAudit(NoFields())
    change = UpdateJob(world.jobs, world.executions, world.nudge, AnyInterval(), audit, world.clock, RETENTION)
    return change(CALLER, job.job_id, lambda _: a_definition(name="another one"))


def cancel(world: World, execution: Execution) -> Awaitable[object]:
    change = CancelExecution(world.jobs, world.executions, world.begins.settle, world.clock)
    return change(CALLER, execution.execution_id)


@pytest.mark.parametrize("change", [World.pause, World.resume, update])
async def test_a_change_of_a_job(world: World, change: ChangeJob) -> None:
    job = await world.job()
    if change is World.resume:
        await world.pause(job)
    await change(world, job)
    world.at("jobs.confirm.after", nothing)
    await change(world, job)


async def test_a_requested_execution(world: World) -> None:
    job = await world.job()
    first = await world.requests.run(CALLER, job.job_id, idempotency_key="k")
    world.at("executions.confirm.after", nothing)
    await world.requests.run(CALLER, job.job_id, idempotency_key="k")
    await world.run(first.execution_id)
    await world.requests.retry(CALLER, first.execution_id, idempotency_key="k")
    world.at("executions.confirm.after", nothing)
    await world.requests.retry(CALLER, first.execution_id, idempotency_key="k")


@pytest.mark.parametrize("runs", [False, True])
async def test_a_cancellation(world: World, runs: bool) -> None:
    execution = await world.requests.run(CALLER, (await world.job()).job_id)
    if runs:
        await world.begin(execution.execution_id)
    await cancel(world, execution)
    world.at("executions.confirm.after", nothing)
    await cancel(world, execution)


async def test_a_begin_a_poll_and_a_report(world: World) -> None:
    execution = await world.requests.run(CALLER, (await world.job()).job_id)
    await world.poll(request="r", executor="x1")
    world.at("executions.confirm.after", nothing)
    (granted,) = (await world.begins.begun("r")).granted
    world.at("executions.confirm.after", nothing)
    await world.begin(execution.execution_id, request="r")
    for result in (Result.RELEASED, Result.ANSWERED):
        await world.report(granted, result=result)
        world.at("executions.confirm.after", nothing)
        await world.report(granted, result=result)
        granted = await world.begun(execution.execution_id) if result is Result.RELEASED else granted
