"""Who is told of ends: by executions of their own, written once whatever dies, apart from the job that they tell of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from libs.common.errors import FailedPreconditionError
from services.scheduler.domain.begin import MAX_LOSSES
from services.scheduler.domain.callback import RETRY, callback_job, is_told
from services.scheduler.domain.execution import FAILURES, Cause, Execution, ExecutionState
from services.scheduler.domain.job import CallbackPolicy, Job, JobState, OverlapPolicy
from services.scheduler.domain.outcome import Result
from services.scheduler.usecases.ports.execution_store import ExecutionFilter
from tests.support.scheduler_values import CALLER, NOW, SCOPE, SECOND
from tests.support.scheduler_world import Death, World

URL = "https://hooks.example.com/ended"
ORG_URL = "https://hooks.example.com/jobs"
TELL = CallbackPolicy(URL)


@pytest.fixture
def world() -> World:
    return World()


def callbacks(world: World) -> list[Execution]:
    return [execution for execution in world.executions.executions.values() if execution.callback]


def message(callback: Execution) -> dict[str, Any]:
    assert callback.callback is not None
    body: dict[str, Any] = json.loads(callback.callback.body)
    return body


async def fire(world: World, job: Job) -> str:
    await world.advance(60 * SECOND)
    delivered = await world.delivered()
    return next(execution_id for execution_id in delivered if execution_id.startswith(job.job_id + "-"))


@pytest.mark.parametrize("state", list(ExecutionState))
def test_who_is_told_of_what(state: ExecutionState) -> None:
    assert not is_told(CallbackPolicy(), state)
    assert is_told(TELL, state) is (state in FAILURES)
    assert is_told(CallbackPolicy(URL, notify_failure=False), state) is False
    assert is_told(CallbackPolicy(URL, notify_failure=False, notify_success=True), state) is (
        state is ExecutionState.SUCCEEDED
    )


async def test_a_failure_is_told_with_what_happened(world: World) -> None:
    job = await world.job(callback=TELL, name="report {{prompt}} é")
    execution_id = await fire(world, job)
    await world.run(execution_id, 400)
    [callback] = callbacks(world)
    assert message(callback) == {
        "type": "execution.failed",
        "timestamp": "2040-01-02T12:01:00.000Z",
        "data": {
            "execution_id": execution_id,
            "job_id": job.job_id,
            "job_name": "report {{prompt}} é",
            "org_id": job.org_id,
            "project_id": "default",
            "cause": "SCHEDULE",
            "state": "FAILED",
            "state_reason": "HTTP_STATUS",
            "fire_time": "2040-01-02T12:01:00.000Z",
            "due_time": "2040-01-02T12:01:00.000Z",
            "start_time": "2040-01-02T12:01:00.000Z",
            "end_time": "2040-01-02T12:01:00.000Z",
            "attempt_count": 1,
            "status_code": 400,
            "error_reason": "HTTP_STATUS",
        },
    }
    assert (callback.cause, callback.org_id, callback.project_id) == (Cause.CALLBACK, job.org_id, "default")
    assert "." not in callback.execution_id


async def test_successes_are_told_where_that_is_wanted(world: World) -> None:
    silent = await world.job(callback=TELL)
    await world.run(await fire(world, silent))
    assert callbacks(world) == []
    told = await world.job(callback=CallbackPolicy(URL, notify_success=True))
    await world.run(await fire(world, told))
    assert [message(callback)["type"] for callback in callbacks(world)] == ["execution.succeeded"]


async def test_a_retry_is_no_end_and_a_skip_no_failure(world: World) -> None:
    job = await world.job(callback=TELL)
    granted = await world.begun(await fire(world, job))
    await world.report(granted, 503)
    await world.pause(job)
    await world.tick()
    assert callbacks(world) == []


async def test_a_callback_is_carried_out_like_any_execution(world: World) -> None:
    job = await world.job(callback=TELL)
    await world.run(await fire(world, job), 400)
    [callback_id] = [e for e in await world.delivered() if e == callbacks(world)[0].execution_id]
    granted = await world.begun(callback_id)
    assert granted.job.definition.target.url == URL
    await world.report(granted, 503)
    assert world.state(callback_id)[0] is ExecutionState.READY
    await world.advance(5 * SECOND)
    assert callback_id in await world.delivered()
    ended = await world.run(callback_id)
    assert (ended.state, ended.attempt_number) == (ExecutionState.SUCCEEDED, 2)
    assert world.stored(job).consecutive_failures == 1


async def test_a_callback_that_nobody_takes_ends_and_tells_nobody(world: World) -> None:
    world.orgs.callback_urls["org-a"] = ORG_URL
    job = await world.job(callback=TELL, max_consecutive_failures=2)
    await world.run(await fire(world, job), 400)
    callback = callbacks(world)[0]
    for _ in range(RETRY.max_attempts):
        await world.clock.advance((world.execution(callback.execution_id).available_time or NOW) - world.clock.now())
        await world.report(await world.begun(callback.execution_id), 500, Result.ANSWERED)
    assert world.state(callback.execution_id) == (ExecutionState.FAILED, "MAX_ATTEMPTS")
    assert len(callbacks(world)) == 1
    assert (world.stored(job).consecutive_failures, world.job_state(job)) == (1, JobState.ACTIVE)
    await world.advance(5 * SECOND)
    await world.sweeps.run_once()
    assert len(callbacks(world)) == 1


async def test_executors_that_die_under_a_callback_do_not_lose_it(world: World) -> None:
    job = await world.job(callback=TELL)
    await world.run(await fire(world, job), 400)
    callback_id = callbacks(world)[0].execution_id
    await world.begun(callback_id)
    for _ in range(MAX_LOSSES):
        await world.advance(16 * SECOND)
        await world.poll()
    assert world.state(callback_id) == (ExecutionState.FAILED, "EXECUTOR_LOST_REPEATEDLY")
    assert world.job_state(job) is JobState.ACTIVE


async def test_a_callback_holds_up_nothing_of_its_job(world: World) -> None:
    job = await world.job(callback=TELL, overlap=OverlapPolicy.SKIP)
    await world.run(await fire(world, job), 400)
    assert await world.executions.find_live_jobs([job.job_id]) == frozenset()
    assert await world.executions.latest_states(job.job_id, 5) == [ExecutionState.FAILED]
    await world.begun(callbacks(world)[0].execution_id)
    assert (await world.run(await fire(world, job))).state is ExecutionState.SUCCEEDED


@pytest.mark.parametrize("change", ["pause", "delete"])
async def test_what_becomes_of_the_job_does_not_matter_to_its_callback(world: World, change: str) -> None:
    job = await world.job(callback=TELL)
    await world.run(await fire(world, job), 400)
    await getattr(world, change)(job)
    assert (await world.run(callbacks(world)[0].execution_id)).state is ExecutionState.SUCCEEDED


@pytest.mark.parametrize(
    "point",
    ["executions.finish.after", "executions.load.before", "executions.insert_new.before", "executions.insert_new.after",
     "executions.settled.before"],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 400])
async def test_a_process_that_dies_leaves_one_callback(world: World, point: str, status: int) -> None:
    job = await world.job(callback=CallbackPolicy(URL, notify_success=True))
    granted = await world.begun(await fire(world, job))
    report = world.report_of(granted, status)
    if point == "executions.load.before":
        # The first load is the report's own.
        async def next_load() -> None:
            world.die_at(point)

        world.at(point, next_load)
    else:
        world.die_at(point)
    with pytest.raises(Death):
        await world.reports([report])
    await world.advance(6 * SECOND)
    await world.sweeps.run_once()
    await world.reports([report])
    await world.sweeps.run_once()
    assert len(callbacks(world)) == 1


async def test_a_job_that_fails_for_good_is_told_to_its_org(world: World) -> None:
    world.orgs.callback_urls["org-a"] = ORG_URL
    job = await world.job(callback=TELL, max_consecutive_failures=3)
    for _ in range(3):
        last = await fire(world, job)
        await world.run(last, 400)
    told = [callback for callback in callbacks(world) if message(callback)["type"] == "job.failed"]
    assert len(callbacks(world)) == 4
    assert message(told[0])["data"] == {
        "job_id": job.job_id,
        "job_name": job.definition.name,
        "org_id": "org-a",
        "project_id": "default",
        "state": "FAILED",
        "state_reason": "CONSECUTIVE_FAILURES",
        "state_note": f"3 failed executions in a row, the last one {last}",
        "execution_id": last,
        "end_time": "2040-01-02T12:03:00.000Z",
    }
    assert callback_job(told[0]).definition.target.url == ORG_URL
    assert len(told) == 1


async def test_an_org_that_wants_no_callback_gets_none(world: World) -> None:
    job = await world.job(max_consecutive_failures=1)
    await world.run(await fire(world, job), 400)
    assert world.job_state(job) is JobState.FAILED
    assert callbacks(world) == []


@pytest.mark.parametrize("point", ["jobs.stop.after", "executions.insert_new.before", "executions.insert_new.after"])
async def test_a_process_that_dies_at_the_end_of_a_job_leaves_one_callback(world: World, point: str) -> None:
    world.orgs.callback_urls["org-a"] = ORG_URL
    job = await world.job(max_consecutive_failures=1)
    granted = await world.begun(await fire(world, job))
    world.die_at(point)
    with pytest.raises(Death):
        await world.report(granted, 400)
    # Whoever resumes the job meanwhile is told all the same.
    await world.resume(job)
    await world.advance(6 * SECOND)
    await world.sweeps.run_once()
    await world.sweeps.run_once()
    assert [message(callback)["type"] for callback in callbacks(world)] == ["job.failed"]


async def test_callbacks_are_listed_by_the_job_that_they_tell_of(world: World) -> None:
    job = await world.job(callback=TELL)
    await world.run(await fire(world, job), 400)
    both = {
        causes: await world.executions.find_page(
            SCOPE, ExecutionFilter(job_id=job.job_id, causes=causes), after=None, limit=10
        )
        for causes in (frozenset[Cause](), frozenset({Cause.CALLBACK}))
    }
    assert [[execution.cause for execution in found] for found in both.values()] == [[Cause.SCHEDULE], [Cause.CALLBACK]]


async def test_a_callback_is_not_repeated_by_a_caller(world: World) -> None:
    job = await world.job(callback=TELL)
    await world.run(await fire(world, job), 400)
    callback_id = callbacks(world)[0].execution_id
    await world.run(callback_id)
    with pytest.raises(FailedPreconditionError, match="callback"):
        await world.requests.retry(CALLER, callback_id)
