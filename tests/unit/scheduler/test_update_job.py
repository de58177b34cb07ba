"""An update of the schedule against ticks and begins: no fire that the present schedule names is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from libs.common.errors import FailedPreconditionError
from services.scheduler.domain.execution import ExecutionState
from services.scheduler.domain.job import Job, JobState
from services.scheduler.domain.schedule import Cron, Schedule
from services.scheduler.usecases.audit import JobAudit
from services.scheduler.usecases.explain_job import ExplainJob, Window
from services.scheduler.usecases.org_settings import OrgQuotas
from services.scheduler.usecases.update_job import UpdateJob
from tests.support.scheduler_values import CALLER, EVERY_MINUTE, HOUR, MINUTE, RETENTION, a_definition, a_job, at
from tests.support.scheduler_world import AmpleOrg, NoFields, World

S = ExecutionState
DROPPED = Schedule(Cron("* * * * *"), "Mars/Phobos")
"""A zone that a newer time zone database has dropped."""


@pytest.fixture
def update(world: World) -> UpdateJob:
    org = AmpleOrg()
    return UpdateJob(
        world.jobs, world.executions, world.nudge, OrgQuotas(org, org), JobAudit(NoFields()), world.clock, RETENTION
    )


async def reschedule(update: UpdateJob, job: Job, schedule: Schedule) -> Job:
    return await update(CALLER, job.job_id, lambda definition: replace(definition, schedule=schedule))


async def an_unusable_job(world: World, downtime: timedelta = 5 * MINUTE) -> Job:
    """Return a job whose schedule cannot be evaluated any more, and whose next fire is over by now."""
    job = replace(a_job(a_definition(schedule=EVERY_MINUTE)), definition=a_definition(schedule=DROPPED))
    assert not await world.jobs.insert_new([job])
    await world.advance(downtime)
    return job


async def test_a_schedule_that_is_changed_back_before_its_fire_has_it_still(world: World, update: UpdateJob) -> None:
    job = await world.job()
    await world.advance(58.5)
    (execution_id,) = await world.delivered()
    await reschedule(update, job, Schedule(Cron("30 * * * *")))
    await world.advance(0.5)
    refusal = (await world.begin(execution_id)).refused[execution_id]
    assert (refusal.reason, refusal.retry_time) == ("SCHEDULE_UNDECIDED", at(60))
    await reschedule(update, job, EVERY_MINUTE)
    await world.advance(1)
    await world.tick()
    assert (await world.run(execution_id)).state is S.SUCCEEDED
    assert list(world.fires(job)) == [at(60)]


async def test_a_job_stopped_for_its_schedule_is_mended_by_an_update(world: World, update: UpdateJob) -> None:
    job = await an_unusable_job(world)
    await world.tick()
    assert world.job_state(job) is JobState.FAILED
    await reschedule(update, job, EVERY_MINUTE)
    assert (await world.resume(job)).next_fire_time == at(360)
    assert world.reasons(job) == ["JOB_FAILED"]


async def test_an_update_that_comes_before_the_tick_lets_the_known_fire_run(world: World, update: UpdateJob) -> None:
    job = await an_unusable_job(world)
    await reschedule(update, job, EVERY_MINUTE)
    assert world.reasons(job) == ["READY"]
    assert (await world.run(*world.executions.executions)).state is S.SUCCEEDED


@pytest.mark.parametrize("stopped", [True, False])
async def test_a_job_whose_schedule_is_unusable_can_be_deleted(world: World, stopped: bool) -> None:
    job = await an_unusable_job(world)
    if stopped:
        await world.tick()
    assert (await world.delete(job)).state is JobState.DELETED
    assert world.reasons(job) == ["JOB_FAILED" if stopped else "JOB_DELETED"]


async def test_a_job_whose_schedule_is_unusable_has_no_further_fire(world: World) -> None:
    job = await an_unusable_job(world)
    await world.pause(job)
    with pytest.raises(FailedPreconditionError) as raised:
        await world.resume(job)
    assert raised.value.reason == "NO_FURTHER_FIRE"


async def test_a_job_whose_schedule_is_unusable_is_explained_by_its_records(world: World) -> None:
    job = await an_unusable_job(world)
    await world.pause(job)
    explain = ExplainJob(world.jobs, world.executions, world.clock, RETENTION)
    window = Window.of(world.clock.now() - HOUR, None, world.clock.now())
    page = await explain(CALLER, job.job_id, window, after=None, limit=10)
    assert [(one.fire_time, one.reason) for one in page.explanations] == [(at(60), "JOB_PAUSED")]
