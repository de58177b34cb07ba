"""Reports: what counts, what is repeated, and what the ends of executions mean for their jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.scheduler.domain.execution import ExecutionState, Outcome, Phase
from services.scheduler.domain.job import Job, JobState, OverlapPolicy, ResponsePolicy, RetryPolicy
from services.scheduler.domain.outcome import Result
from services.scheduler.usecases.ports.execution_store import Cancellation
from services.scheduler.usecases.settle import ORPHAN_AGE
from tests.support.scheduler_values import CALLER, MINUTE, SECOND, a_job, once
from tests.support.scheduler_world import Death, World

S = ExecutionState


async def due(world: World, **definition: Any) -> tuple[Job, str]:
    job = await world.job(**{"schedule": once(world.clock.now() + SECOND), **definition})
    await world.advance(1)
    (execution_id,) = await world.delivered()
    return job, execution_id


async def next_fire(world: World) -> str:
    await world.advance(60)
    (execution_id,) = await world.delivered()
    return execution_id


async def test_a_one_time_job_completes_with_its_success(world: World) -> None:
    job, execution_id = await due(world)
    ended = await world.run(execution_id)
    assert (ended.state, ended.phase, ended.start_time) == (S.SUCCEEDED, None, world.clock.now())
    assert world.job_state(job) is JobState.COMPLETED


async def test_a_one_time_job_completes_whose_cursor_moved_only_while_its_execution_ran(world: World) -> None:
    job = await world.job(schedule=once(world.clock.now() + SECOND))
    await world.advance(1)
    world.die_at("jobs.advance.before")
    with pytest.raises(Death):
        await world.tick()
    await world.advance(2)
    (granted,) = (await world.poll()).granted
    await world.tick()
    assert await world.report(granted)
    assert world.job_state(job) is JobState.COMPLETED


async def test_a_recurring_job_goes_on_after_its_success(world: World) -> None:
    job = await world.job()
    await world.run(await next_fire(world))
    assert world.job_state(job) is JobState.ACTIVE


async def test_a_report_is_idempotent(world: World) -> None:
    job, execution_id = await due(world, retry=RetryPolicy(max_attempts=1))
    granted = await world.begun(execution_id)
    report = world.report_of(granted, 503)
    first = await world.reports([report])
    stored = world.execution(execution_id)
    again = await world.reports([report, report])
    assert first == again == {(execution_id, 1): S.FAILED}
    assert world.execution(execution_id) == stored
    assert len(stored.attempts) == 1
    assert world.stored(job).consecutive_failures == 1


async def test_a_repeated_report_is_known_by_its_token_whatever_was_decided_since(world: World) -> None:
    # Repeated so late that a retry would be too old by now: it stays a retry.
    _, execution_id = await due(world, retry=RetryPolicy(max_age=10 * SECOND))
    granted = await world.begun(execution_id)
    assert await world.report(granted, 503)
    before = world.execution(execution_id)
    await world.advance(MINUTE)
    assert await world.report(granted, 503)
    assert await world.report(granted, 200)
    assert world.execution(execution_id) == before


async def test_a_report_of_the_former_lease_and_of_the_present_one_in_one_batch(world: World) -> None:
    _, execution_id = await due(world)
    first = await world.begun(execution_id)
    old = world.report_of(first, 503)
    await world.reports([old])
    await world.advance(2)
    second = await world.begun(execution_id)
    new = world.report_of(second, 200)
    assert await world.reports([old, new]) == {(execution_id, 1): S.RUNNING, (execution_id, 2): S.SUCCEEDED}
    assert world.execution(execution_id).state is S.SUCCEEDED


@pytest.mark.parametrize("token", [0, 2, 99])
async def test_a_report_under_another_token_does_not_count(world: World, token: int) -> None:
    _, execution_id = await due(world)
    granted = await world.begun(execution_id)
    report = world.report_of(granted)
    forged = type(report)(report.execution_id, token, report.result, report.end_time, response=report.response)
    unknown = type(report)("gone-1", 1, report.result, report.end_time)
    assert await world.reports([forged, unknown]) == {}
    assert world.execution(execution_id).state is S.RUNNING


async def test_a_report_on_what_never_began_or_was_skipped_does_not_count(world: World) -> None:
    job, execution_id = await due(world)
    granted = (await world.begun(execution_id), (await due(world))[1])
    report = world.report_of(granted[0])
    never = type(report)(granted[1], 0, Result.ANSWERED, world.clock.now(), response=report.response)
    assert await world.reports([never]) == {}
    await world.delete(world.stored(world.jobs.jobs[world.execution(granted[1]).job_id]))
    assert await world.reports([never]) == {}
    assert world.state(granted[1]) == (S.SKIPPED, "JOB_DELETED")
    assert job.consecutive_failures == 0


# Retries and deferrals


async def test_a_failure_waits_in_the_database_and_runs_again(world: World) -> None:
    job, execution_id = await due(world)
    assert await world.report(await world.begun(execution_id), 503)
    waiting = world.execution(execution_id)
    assert (waiting.state, waiting.phase) == (S.READY, Phase.WAITING)
    assert waiting.available_time == world.clock.now() + 2 * SECOND
    assert world.nudge.notified[-1] == waiting.available_time
    assert await world.delivered() == [execution_id]
    await world.advance(2)
    ended = await world.run(execution_id)
    assert ended.state is S.SUCCEEDED
    assert [attempt.outcome for attempt in ended.attempts] == [Outcome.FAILED, Outcome.SUCCEEDED]
    assert world.job_state(job) is JobState.COMPLETED
    assert world.stored(job).consecutive_failures == 0


async def test_attempts_are_used_up(world: World) -> None:
    job, execution_id = await due(world)
    for wait in (2, 4, 0):
        assert await world.report(await world.begun(execution_id), 503)
        await world.advance(wait)
    assert world.state(execution_id) == (S.FAILED, "MAX_ATTEMPTS")
    assert world.stored(job).consecutive_failures == 1


async def test_releases_and_deferrals_use_no_attempt_up(world: World) -> None:
    _, execution_id = await due(world)
    for number in range(1, 8):
        granted = await world.begun(execution_id)
        assert (granted.attempt_number, granted.fencing_token) == (1, number)
        if number % 2:
            assert await world.report(granted, result=Result.RELEASED)
            assert world.execution(execution_id).available_time == world.clock.now()
        else:
            until = world.clock.now() + 5 * SECOND
            assert await world.report(granted, result=Result.DEFERRED, defer_time=until, defer_reason="RATE_LIMIT")
            assert world.execution(execution_id).wait_reason == "RATE_LIMIT"
            await world.advance(5)
    stored = world.execution(execution_id)
    assert (stored.deferral_count, stored.attempt_number, len(stored.attempts)) == (3, 0, 0)
    assert (await world.run(execution_id)).state is S.SUCCEEDED


async def test_a_retry_of_a_deleted_job_does_not_begin(world: World) -> None:
    job, execution_id = await due(world)
    granted = await world.begun(execution_id)
    await world.delete(job)
    assert await world.report(granted, 503)
    assert world.state(execution_id) == (S.CANCELLED, "JOB_DELETED")


async def test_a_cancelled_execution_is_not_tried_again(world: World) -> None:
    _, execution_id = await due(world)
    granted = await world.begun(execution_id)
    wanted = Cancellation("CANCELLED_BY_CALLER", "somebody")
    assert await world.executions.request_cancel(granted.execution, wanted)
    verdicts = await world.extends("x1", {execution_id: 1})
    assert [verdict.value for verdict in verdicts.values()] == ["CANCEL"]
    assert await world.report(granted, result=Result.CANCELLED)
    assert world.state(execution_id) == (S.CANCELLED, "CANCELLED_BY_CALLER")


async def test_a_report_of_a_purged_job_ends_unknown(world: World) -> None:
    job, execution_id = await due(world)
    granted = await world.begun(execution_id)
    world.jobs._jobs.pop(job.job_id)
    # It was deleted so long before that no replica remembers it.
    world.jobs._recalled.pop(job.job_id)
    assert await world.report(granted)
    assert world.state(execution_id) == (S.UNKNOWN, "JOB_DELETED")


# Failures in a row


async def test_five_failures_in_a_row_end_a_job_once(world: World) -> None:
    job = await world.job(retry=RetryPolicy(max_attempts=1))
    for number in range(1, 6):
        assert world.job_state(job) is JobState.ACTIVE
        await world.run(await next_fire(world), 503)
        assert world.stored(job).consecutive_failures == number
    stopped = world.stored(job)
    assert (stopped.state, stopped.state_reason, stopped.revision) == (JobState.FAILED, "CONSECUTIVE_FAILURES", 2)
    assert [event.method for event in world.jobs.events] == ["job.failed"]
    await world.advance(MINUTE)
    assert await world.delivered() == []


async def test_a_success_in_between_begins_the_count_anew(world: World) -> None:
    job = await world.job(retry=RetryPolicy(max_attempts=1))
    for status in (503, 503, 503, 503, 200, 503, 503, 503, 503):
        await world.run(await next_fire(world), status)
    assert world.job_state(job) is JobState.ACTIVE
    assert world.stored(job).consecutive_failures == 4
    await world.run(await next_fire(world), 503)
    assert world.job_state(job) is JobState.FAILED


async def test_a_success_ends_the_failures_that_others_came_to_while_it_ran(world: World) -> None:
    job = await world.job(retry=RetryPolicy(max_attempts=1), overlap=OverlapPolicy.ALLOW)
    first = await world.begun(await next_fire(world))
    await world.run(await next_fire(world), 503)
    assert world.stored(job).consecutive_failures == 1
    assert await world.report(first, 200)
    assert world.stored(job).consecutive_failures == 0


async def test_a_success_is_judged_by_no_definition_from_before_its_begin(world: World) -> None:
    # Two reads of a job may come in while it changes, and what is remembered last is the older one.
    job = await world.job(retry=RetryPolicy(max_attempts=1))
    execution_id = await next_fire(world)
    before = world.stored(job)
    definition = replace(before.definition, response=ResponsePolicy(success_codes=(202,)))
    changed = replace(before, definition=definition, revision=2)
    assert await world.jobs.replace(CALLER.scope, changed, expected=before)
    granted = await world.begun(execution_id)
    world.jobs._recalled[job.job_id] = before
    assert await world.report(granted, 200)
    assert world.state(execution_id) == (S.FAILED, "HTTP_STATUS")


async def test_a_success_whose_reset_was_lost_does_not_end_the_job(world: World) -> None:
    job = await world.job(retry=RetryPolicy(max_attempts=1))
    for _ in range(4):
        await world.run(await next_fire(world), 503)
    granted = await world.begun(await next_fire(world))
    world.die_at("jobs.reset_failures.before")
    with pytest.raises(Death):
        await world.report(granted, 200)
    for number in range(1, 5):
        await world.run(await next_fire(world), 503)
        assert (world.job_state(job), number) == (JobState.ACTIVE, number)
    await world.run(await next_fire(world), 503)
    assert world.job_state(job) is JobState.FAILED


@pytest.mark.parametrize(
    "checkpoint",
    ["executions.finish.after", "jobs.count_failures.before", "jobs.count_failures.after", "executions.settled.before"],
)
async def test_a_failure_counts_once_whichever_line_its_settling_dies_on(world: World, checkpoint: str) -> None:
    job = await world.job(retry=RetryPolicy(max_attempts=1))
    granted = await world.begun(await next_fire(world))
    world.die_at(checkpoint)
    with pytest.raises(Death):
        await world.report(granted, 503)
    await world.advance(10)
    assert await world.sweeps.run_once() == 1
    assert world.stored(job).consecutive_failures == 1
    assert await world.sweeps.run_once() == 0
    assert await world.report(granted, 503)
    assert world.stored(job).consecutive_failures == 1


@pytest.mark.parametrize("checkpoint", ["jobs.stop.before", "jobs.stop.after", "executions.settled.before"])
async def test_a_job_ends_once_whichever_line_its_end_dies_on(world: World, checkpoint: str) -> None:
    job = await world.job(retry=RetryPolicy(max_attempts=1))
    for _ in range(4):
        await world.run(await next_fire(world), 503)
    granted = await world.begun(await next_fire(world))
    world.die_at(checkpoint)
    with pytest.raises(Death):
        await world.report(granted, 503)
    await world.advance(10)
    await world.sweeps.run_once()
    assert (world.job_state(job), world.stored(job).revision) == (JobState.FAILED, 2)


async def test_two_reports_at_once_end_a_job_once(world: World) -> None:
    job = await world.job(retry=RetryPolicy(max_attempts=1), overlap=OverlapPolicy.ALLOW)
    for _ in range(4):
        await world.run(await next_fire(world), 503)
    fifth, sixth = await next_fire(world), await next_fire(world)
    first, second = await world.begun(fifth), await world.begun(sixth)

    async def other() -> None:
        assert await world.report(second, 503)

    world.at("jobs.stop.before", other)
    assert await world.report(first, 503)
    assert (world.job_state(job), world.stored(job).revision) == (JobState.FAILED, 2)
    assert world.stored(job).consecutive_failures == 6


async def test_the_targets_wish_to_stop_pauses_the_job(world: World) -> None:
    job = await world.job()
    assert await world.report(await world.begun(await next_fire(world)), 410, stop_requested=True)
    stopped = world.stored(job)
    assert (stopped.state, stopped.state_reason) == (JobState.PAUSED, "TARGET_ASKED_TO_STOP")
    assert stopped.consecutive_failures == 0


async def test_a_success_that_asks_to_stop_pauses_the_job_and_is_a_success(world: World) -> None:
    job = await world.job()
    execution_id = await next_fire(world)
    granted = await world.begun(execution_id)
    world.die_at("executions.finish.after")
    with pytest.raises(Death):
        await world.report(granted, 200, stop_requested=True)
    assert world.job_state(job) is JobState.ACTIVE
    await world.advance(10)
    assert await world.sweeps.run_once() == 1
    assert world.state(execution_id) == (ExecutionState.SUCCEEDED, "TARGET_ASKED_TO_STOP")
    assert (world.job_state(job), world.stored(job).state_reason) == (JobState.PAUSED, "TARGET_ASKED_TO_STOP")
    (event,) = world.jobs.events
    assert (event.method, event.object_id, event.note) == ("job.paused", job.job_id, "the target asked to stop")


async def test_a_job_that_was_resumed_is_not_paused_again_for_the_same_answer(world: World) -> None:
    job = await world.job()
    granted = await world.begun(await next_fire(world))
    world.die_at("executions.settled.before")
    with pytest.raises(Death):
        await world.report(granted, 410, stop_requested=True)
    await world.advance(1)
    await world.resume(job)
    await world.advance(10)
    assert await world.sweeps.run_once() == 1
    assert await world.report(granted, 410, stop_requested=True)
    assert world.job_state(job) is JobState.ACTIVE


async def test_a_deferral_that_would_outlive_the_execution_ends_it(world: World) -> None:
    job = await world.job(retry=RetryPolicy(max_age=60 * SECOND))
    execution_id = await next_fire(world)
    wait = {"result": Result.DEFERRED, "defer_reason": "TARGET_RATE_LIMIT"}
    due = world.execution(execution_id).due_time
    assert await world.report(await world.begun(execution_id), defer_time=due + 4 * SECOND, **wait)
    assert world.execution(execution_id).wait_reason == "TARGET_RATE_LIMIT"
    assert await world.report(await world.begun(execution_id), defer_time=due + 61 * SECOND, **wait)
    assert world.state(execution_id) == (ExecutionState.RATE_LIMITED, "MAX_AGE")
    assert world.stored(job).consecutive_failures == 1


async def test_the_failures_of_many_jobs_are_counted_in_one_write(world: World) -> None:
    jobs = [await world.job(schedule=once(), retry=RetryPolicy(max_attempts=1)) for _ in range(30)]
    batch = await world.begin(*await world.delivered())
    writes: list[str] = []

    async def note(name: str) -> None:
        writes.append(name)

    world.on_checkpoint = note
    await world.reports([world.report_of(granted, 503) for granted in batch.granted])
    assert [world.stored(job).consecutive_failures for job in jobs] == [1] * 30
    assert len(writes) < 30, writes


async def test_a_resumed_job_has_all_its_failures_again(world: World) -> None:
    job = await world.job(retry=RetryPolicy(max_attempts=1), max_consecutive_failures=1)
    await world.run(await next_fire(world), 503)
    assert world.job_state(job) is JobState.FAILED
    await world.resume(job)
    assert (world.job_state(job), world.stored(job).consecutive_failures) == (JobState.ACTIVE, 0)
    await world.run(await next_fire(world), 200)
    assert world.job_state(job) is JobState.ACTIVE


# Completion


@pytest.mark.parametrize("checkpoint", ["executions.finish.after", "jobs.complete.before"])
async def test_a_one_time_job_completes_also_when_its_settling_died(world: World, checkpoint: str) -> None:
    job, execution_id = await due(world)
    granted = await world.begun(execution_id)
    world.die_at(checkpoint)
    with pytest.raises(Death):
        await world.report(granted)
    assert world.job_state(job) is JobState.ACTIVE
    await world.advance(ORPHAN_AGE + SECOND)
    assert await world.sweeps.run_once() == 1
    assert world.job_state(job) is JobState.COMPLETED


async def test_a_repeated_report_completes_what_its_first_copy_left(world: World) -> None:
    job, execution_id = await due(world)
    granted = await world.begun(execution_id)
    world.die_at("executions.finish.after")
    with pytest.raises(Death):
        await world.report(granted)
    assert await world.report(granted)
    assert world.job_state(job) is JobState.COMPLETED


async def test_a_job_with_something_under_way_is_not_completed(world: World) -> None:
    job, execution_id = await due(world)
    granted = await world.begun(execution_id)
    await world.advance(ORPHAN_AGE + SECOND)
    await world.sweeps.run_once()
    assert world.job_state(job) is JobState.ACTIVE
    await world.extends("x1", {execution_id: 1})
    assert await world.report(granted)
    assert world.job_state(job) is JobState.COMPLETED


async def test_jobs_that_wait_for_their_last_execution_do_not_hide_an_orphan(world: World) -> None:
    world.sweeps.batch = 2
    waiting = [await world.job(schedule=once(world.clock.now() + SECOND)) for _ in range(9)]
    orphan = a_job(next_fire_time=None, next_due_time=None)
    await world.jobs.insert_new([orphan])
    await world.advance(1)
    await world.tick()
    await world.advance(ORPHAN_AGE + SECOND)
    # A batch begins with the partition that the last one ended in, so that each brings at least one job.
    for _ in range(len(waiting) + 1):
        await world.sweeps.run_once()
    assert world.job_state(orphan) is JobState.COMPLETED
    assert {world.job_state(job) for job in waiting} == {JobState.ACTIVE}


async def test_a_sweep_with_nothing_to_do_does_nothing(world: World) -> None:
    await world.job()
    assert await world.sweeps.run_once() == 0
