"""UpdateJob over the wire: masks, guards, and what becomes of fires when the schedule changes under them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from punctual.v1 import execution_pb2, job_pb2
from punctual.v1.execution_service_pb2 import GetExecutionRequest, ListExecutionsRequest
from punctual.v1.job_service_pb2 import (
    DeleteJobRequest,
    GetJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
    RunJobRequest,
    UpdateJobRequest,
    UpdateJobResponse,
)

from libs.common.testing.fake_clock import FakeClock
from tests.support.served_scheduler import ORG, ServedScheduler, cron, instant, once_at, refusal, served_scheduler

NOON = datetime(2040, 1, 2, 12, 0, tzinfo=UTC)
State = execution_pb2.Execution


async def update(
    api: ServedScheduler, job: job_pb2.Job, *paths: str, etag: str = "", validate_only: bool = False, **changes: object
) -> UpdateJobResponse:
    request = UpdateJobRequest(
        job=job_pb2.Job(job_id=job.job_id, etag=etag, **changes),
        update_mask=FieldMask(paths=paths) if paths else None,
        validate_only=validate_only,
    )
    return await api.jobs.UpdateJob(request, metadata=ORG)


async def read(api: ServedScheduler, job: job_pb2.Job) -> job_pb2.Job:
    return await api.jobs.GetJob(GetJobRequest(job_id=job.job_id), metadata=ORG)


async def executions(api: ServedScheduler, job: job_pb2.Job) -> list[tuple[datetime, str]]:
    answer = await api.executions.ListExecutions(ListExecutionsRequest(job_id=job.job_id), metadata=ORG)
    return [
        (instant(item.fire_time), f"{State.State.Name(item.state)[6:]} {item.state_reason}".strip())
        for item in reversed(answer.executions)
    ]


@pytest.fixture
async def timed(mongo_uri: str, empty_database: str):
    """A scheduler whose clock stands at noon until the test moves it, and the clock."""
    clock = FakeClock(NOON)
    async with served_scheduler(mongo_uri, empty_database, clock=clock) as served:
        yield served, clock


async def test_an_update_changes_what_it_names_and_counts_the_revision(api: ServedScheduler) -> None:
    job = await api.create(labels={"team": "a"})
    answer = await update(api, job, "name", name="new", description="not named")
    assert (answer.job.name, answer.job.description, dict(answer.job.labels)) == ("new", "", {"team": "a"})
    assert (answer.job.revision, answer.job.etag != job.etag) == (2, True)
    assert answer.job == await read(api, job)
    assert len(answer.next_fires) == 5


async def test_an_update_that_changes_nothing_leaves_the_revision(api: ServedScheduler) -> None:
    job = await api.create()
    shown = await read(api, job)
    answer = await api.jobs.UpdateJob(UpdateJobRequest(job=shown), metadata=ORG)
    assert answer.job == shown


async def test_a_stale_etag_is_refused(api: ServedScheduler) -> None:
    job = await api.create()
    await update(api, job, name="first", etag=job.etag)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await update(api, job, name="second", etag=job.etag)
    assert (raised.value.code(), refusal(raised.value).reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert (await read(api, job)).name == "first"


async def test_of_many_guarded_updates_at_once_one_wins(api: ServedScheduler) -> None:
    job = await api.create()
    answers = await asyncio.gather(
        *(update(api, job, name=f"n{number}", etag=job.etag) for number in range(10)), return_exceptions=True
    )
    assert sum(isinstance(answer, UpdateJobResponse) for answer in answers) == 1
    assert (await read(api, job)).revision == 2


async def test_updates_of_different_fields_at_once_all_hold(api: ServedScheduler) -> None:
    job = await api.create()
    await asyncio.gather(
        update(api, job, name="new"),
        update(api, job, description="new"),
        update(api, job, labels={"team": "b"}),
        update(api, job, max_consecutive_failures=9),
    )
    now = await read(api, job)
    assert (now.name, now.description, dict(now.labels), now.max_consecutive_failures) == (
        "new",
        "new",
        {"team": "b"},
        9,
    )
    assert now.revision == 5


async def test_validation_only_stores_nothing(api: ServedScheduler) -> None:
    job = await api.create()
    answer = await update(api, job, name="new", validate_only=True)
    assert (answer.job.name, (await read(api, job)).name) == ("new", "summary")


async def test_a_secret_stays_through_an_unrelated_update_and_its_mask(api: ServedScheduler) -> None:
    target = job_pb2.Target(url="https://api.example.com", prompt="Hi.")
    target.headers.add(name="Authorization", value="Bearer canary")
    job = await api.create(target=target)
    await update(api, job, name="new")
    shown = await read(api, job)
    await update(api, job, "target.headers", target=shown.target)
    await api.jobs.UpdateJob(UpdateJobRequest(job=shown, update_mask=FieldMask(paths=["*"])), metadata=ORG)
    execution = await api.jobs.RunJob(RunJobRequest(job_id=job.job_id), metadata=ORG)
    grant = (await api.begin(execution.execution_id)).grants[0]
    assert [(header.name, header.value) for header in grant.request.headers] == [("Authorization", "Bearer canary")]


async def test_a_mask_without_a_stored_secret_is_refused(api: ServedScheduler) -> None:
    job = await api.create()
    target = job_pb2.Target()
    target.headers.add(name="Authorization", value="********")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await update(api, job, target=target)
    assert refusal(raised.value).reason == "MASKED_VALUE"
    assert refusal(raised.value).fields == ("job.target.headers[0].value",)


async def test_a_new_schedule_counts_from_now(timed) -> None:
    api, clock = timed
    job = await api.create(schedule=cron("0 * * * *"))
    await clock.advance(timedelta(minutes=10))
    answer = await update(api, job, schedule=cron("*/5 * * * *"))
    assert instant(answer.job.next_fire_time) == NOON + timedelta(minutes=15)


async def test_fires_before_the_change_run_under_the_old_schedule(timed) -> None:
    api, clock = timed
    job = await api.create(
        schedule=cron("*/10 * * * *"), catch_up_policy=job_pb2.CatchUpPolicy(mode=job_pb2.CatchUpPolicy.MODE_ALL)
    )
    await clock.advance(timedelta(minutes=25))
    answer = await update(api, job, schedule=cron("0 0 * * *"), target=job_pb2.Target(prompt="New."))
    assert await executions(api, job) == [
        (NOON + timedelta(minutes=10), "READY"),
        (NOON + timedelta(minutes=20), "READY"),
    ]
    assert instant(answer.job.next_fire_time) == NOON + timedelta(hours=12)
    handed_over = await api.tick()
    batch = await api.begin(*handed_over)
    # Fired, but not begun before the change: they send the new prompt, and say which revision they ran.
    assert {b"New." in grant.request.body for grant in batch.grants} == {True}
    for grant in batch.grants:
        await api.report(grant)
    shown = await api.executions.GetExecution(
        GetExecutionRequest(execution_id=batch.grants[0].execution_id), metadata=ORG
    )
    assert (shown.job_revision, shown.prompt) == (2, "New.")


async def test_what_was_materialized_ahead_is_skipped_when_the_new_schedule_lacks_it(timed) -> None:
    api, clock = timed
    job = await api.create(schedule=cron("*/10 * * * *"))
    await clock.advance(timedelta(minutes=9, seconds=59))
    (ahead,) = await api.tick()
    await update(api, job, schedule=cron("0 0 * * *"))
    await clock.advance(2)
    await api.begin(ahead)
    assert await executions(api, job) == [(NOON + timedelta(minutes=10), "SKIPPED SCHEDULE_CHANGED")]


async def test_what_was_materialized_ahead_runs_when_the_new_schedule_has_it_too(timed) -> None:
    api, clock = timed
    job = await api.create(schedule=cron("*/10 * * * *"))
    await clock.advance(timedelta(minutes=9, seconds=59))
    (ahead,) = await api.tick()
    await update(api, job, schedule=cron("*/5 * * * *"))
    assert await api.tick() == [ahead]  # delivered once more, which changes nothing
    await clock.advance(2)
    assert [grant.execution_id for grant in (await api.begin(ahead)).grants] == [ahead]
    assert len(await executions(api, job)) == 1


async def test_a_completed_job_lives_again_with_a_further_fire(timed) -> None:
    api, clock = timed
    job = await api.create(schedule=once_at(NOON + timedelta(minutes=1)))
    await clock.advance(timedelta(minutes=1))
    batch = await api.begin(*await api.tick())
    await api.report(batch.grants[0])
    assert (await read(api, job)).state == job_pb2.Job.STATE_COMPLETED
    # Its only fire is over, and an update of something else does not mind.
    await update(api, job, name="renamed")
    assert (await read(api, job)).state == job_pb2.Job.STATE_COMPLETED
    answer = await update(api, job, schedule=once_at(NOON + timedelta(minutes=5)))
    assert answer.job.state == job_pb2.Job.STATE_ACTIVE
    assert instant(answer.job.next_fire_time) == NOON + timedelta(minutes=5)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await update(api, job, schedule=once_at(NOON - timedelta(minutes=1)))
    assert refusal(raised.value).reason == "RUN_AT_IN_PAST"


async def test_a_paused_job_takes_a_new_schedule_and_stays_paused(timed) -> None:
    api, clock = timed
    job = await api.create(schedule=cron("*/10 * * * *"))
    await api.jobs.PauseJob(PauseJobRequest(job_id=job.job_id), metadata=ORG)
    answer = await update(api, job, schedule=cron("*/5 * * * *"))
    assert (answer.job.state, list(answer.next_fires)) == (job_pb2.Job.STATE_PAUSED, [])
    await clock.advance(timedelta(minutes=30))
    assert await api.tick() == []
    resumed = await api.jobs.ResumeJob(ResumeJobRequest(job_id=job.job_id), metadata=ORG)
    assert instant(resumed.next_fire_time) == NOON + timedelta(minutes=35)


async def test_a_deleted_job_cannot_be_changed(api: ServedScheduler) -> None:
    job = await api.create()
    await api.jobs.DeleteJob(DeleteJobRequest(job_id=job.job_id), metadata=ORG)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await update(api, job, name="new")
    assert (raised.value.code(), refusal(raised.value).reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "WRONG_JOB_STATE",
    )


async def test_a_prompt_is_shown_as_long_as_it_is_the_one_that_ran(timed) -> None:
    api, clock = timed
    target = job_pb2.Target(url="https://api.example.com", prompt="Old.")
    job = await api.create(schedule=cron("*/10 * * * *"), target=target)
    await clock.advance(timedelta(minutes=10))
    batch = await api.begin(*await api.tick())
    await api.report(batch.grants[0])

    async def shown() -> str:
        request = GetExecutionRequest(execution_id=batch.grants[0].execution_id)
        return (await api.executions.GetExecution(request, metadata=ORG)).prompt

    assert await shown() == "Old."
    await api.jobs.PauseJob(PauseJobRequest(job_id=job.job_id), metadata=ORG)
    assert await shown() == "Old."
    await update(api, job, target=job_pb2.Target(prompt="New."))
    assert await shown() == ""


async def test_a_deleted_job_stops_at_once_with_all_that_waits_and_runs(timed) -> None:
    api, clock = timed
    job = await api.create(
        schedule=cron("* * * * *"), overlap_policy=job_pb2.OVERLAP_POLICY_ALLOW, retry_policy=job_pb2.RetryPolicy()
    )
    await clock.advance(60)
    retried = (await api.begin(*await api.tick())).grants[0]
    await api.report(retried, status_code=503)
    await clock.advance(60)
    running = (await api.begin(*await api.tick())).grants
    waiting = [grant for grant in running if grant.execution_id == retried.execution_id]
    running = [grant for grant in running if grant.execution_id != retried.execution_id]
    await api.report(waiting[0], status_code=503)
    await clock.advance(60)
    await api.tick()
    await clock.advance(59)
    await api.tick()
    await api.jobs.DeleteJob(DeleteJobRequest(job_id=job.job_id), metadata=ORG)
    assert await executions(api, job) == [
        (NOON + timedelta(minutes=1), "CANCELLED JOB_DELETED"),
        (NOON + timedelta(minutes=2), "RUNNING"),
        (NOON + timedelta(minutes=3), "SKIPPED JOB_DELETED"),
    ]
    await api.report(running[0], status_code=503)
    assert (await executions(api, job))[1] == (NOON + timedelta(minutes=2), "CANCELLED JOB_DELETED")
