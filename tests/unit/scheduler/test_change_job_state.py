"""Pause, resume and delete against ticks: no fire of an active job is lost, and none of a held one runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from libs.common.errors import AbortedError, FailedPreconditionError, InvalidArgumentError, NotFoundError
from services.scheduler.domain.execution import ExecutionState
from services.scheduler.domain.job import CatchUpMode, CatchUpPolicy, Job, JobState, RetryPolicy
from services.scheduler.domain.schedule import Cron, Schedule, due_time
from services.scheduler.usecases.bulk_change_state import PAGE, BulkChangeState
from services.scheduler.usecases.caller import Caller, OrgScope
from services.scheduler.usecases.change_job_state import MAX_NOTE, MAX_TRIES
from services.scheduler.usecases.ports.job_store import JobFilter
from tests.support.scheduler_values import CALLER, EVERY_MINUTE, HOUR, MINUTE, RETENTION, SCOPE, at, once
from tests.support.scheduler_world import Death, World

S = ExecutionState


async def test_a_pause_records_the_fires_that_no_tick_saw(world: World) -> None:
    job = await world.job(catch_up=CatchUpPolicy(CatchUpMode.ALL))
    await world.advance(5 * MINUTE)
    paused = await world.pause(job)
    assert (paused.state, paused.state_reason, paused.revision) == (JobState.PAUSED, "PAUSED_BY_CALLER", 2)
    assert list(world.fires(job)) == [at(60 * minute) for minute in range(1, 6)]
    assert world.reasons(job) == ["JOB_PAUSED"] * 5
    assert all(execution.expire_time == at(300) + RETENTION for execution in world.fires(job).values())
    assert await world.delivered() == []


async def test_a_pause_keeps_the_reasons_that_a_fire_had_anyway(world: World) -> None:
    job = await world.job()
    await world.advance(3 * MINUTE + 30 * (at(1) - at(0)))
    await world.pause(job)
    assert world.reasons(job) == ["COALESCED", "COALESCED", "JOB_PAUSED"]


async def test_a_pause_records_a_fire_that_its_jitter_holds_back(world: World) -> None:
    schedule = replace(Schedule(Cron("0 * * * *")), jitter=HOUR)
    job = await world.job(schedule=schedule)
    fire = at(3600)
    assert due_time(schedule, job.job_id, fire) > fire
    await world.advance(HOUR)
    await world.pause(job)
    assert world.reasons(job) == ["JOB_PAUSED"]
    await world.resume(job)
    assert world.stored(job).next_fire_time == at(7200)
    assert list(world.fires(job)) == [fire]


async def test_a_pause_withdraws_what_was_delivered_and_did_not_begin(world: World) -> None:
    job = await world.job()
    await world.advance(60)
    (execution_id,) = await world.delivered()
    await world.pause(job)
    assert world.state(execution_id) == (S.SKIPPED, "JOB_PAUSED")
    assert (await world.begin(execution_id)).refused[execution_id].reason == "FINAL"


async def test_what_runs_goes_on_through_a_pause(world: World) -> None:
    job = await world.job()
    await world.advance(60)
    (execution_id,) = await world.delivered()
    granted = await world.begun(execution_id)
    await world.pause(job)
    assert await world.report(granted, 503)
    await world.advance(2)
    assert (await world.run(execution_id)).state is S.SUCCEEDED


async def test_a_fire_ahead_is_decided_at_its_time_paused(world: World) -> None:
    job = await world.job()
    await world.advance(59)
    (execution_id,) = await world.delivered()
    await world.pause(job)
    refusal = (await world.begin(execution_id)).refused[execution_id]
    assert (refusal.reason, refusal.retry_time) == ("JOB_STATE_UNDECIDED", at(60))
    await world.advance(1)
    assert (await world.begin(execution_id)).refused[execution_id].reason == "SKIPPED"
    assert world.state(execution_id) == (S.SKIPPED, "JOB_PAUSED")


async def test_a_fire_ahead_runs_when_the_job_is_resumed_before_it(world: World) -> None:
    job = await world.job()
    await world.advance(58.5)
    (execution_id,) = await world.delivered()
    await world.pause(job)
    await world.begin(execution_id)
    await world.advance(0.5)
    await world.resume(job)
    assert world.stored(job).next_fire_time == at(60)
    await world.advance(1)
    await world.tick()
    assert (await world.run(execution_id)).state is S.SUCCEEDED
    assert list(world.fires(job)) == [at(60)]
    assert world.stored(job).next_fire_time == at(120)


async def test_a_pause_and_a_resume_within_one_tick_lose_no_fire(world: World) -> None:
    job = await world.job()
    await world.advance(59)

    async def toggle() -> None:
        await world.pause(job)
        await world.resume(job)

    # The tick has made the record; the cursor comes back to where the tick expects it.
    world.at("jobs.advance.before", toggle)
    await world.tick()
    await world.advance(1)
    await world.tick()
    (execution,) = world.fires(job).values()
    assert (execution.fire_time, execution.state) == (at(60), S.READY)
    assert (await world.run(execution.execution_id)).state is S.SUCCEEDED


async def test_a_slow_pause_takes_back_nothing_of_a_resumed_job(world: World) -> None:
    job = await world.job()
    await world.advance(58)

    async def resumed_by_another() -> None:
        await world.resume(job)
        await world.tick()

    world.at("executions.withdraw.before", resumed_by_another)
    await world.pause(job)
    assert world.job_state(job) is JobState.ACTIVE
    assert world.stored(job).next_fire_time == at(120)
    await world.advance(2)
    (execution,) = world.fires(job).values()
    assert (await world.run(execution.execution_id)).state is S.SUCCEEDED


async def test_a_tick_that_is_late_to_a_pause_makes_nothing_run(world: World) -> None:
    job = await world.job()
    await world.advance(60)

    async def pause() -> None:
        await world.pause(job)

    world.at("executions.insert_new.before", pause)
    delivered = await world.delivered()
    await world.begin(*delivered)
    assert world.reasons(job) == ["JOB_PAUSED"]
    assert world.job_state(job) is JobState.PAUSED


async def test_a_pause_that_meets_a_tick_is_done_again(world: World) -> None:
    job = await world.job()
    await world.advance(60)

    async def tick() -> None:
        await world.tick()

    world.at("jobs.replace.before", tick)
    paused = await world.pause(job)
    assert (paused.state, paused.next_fire_time) == (JobState.PAUSED, at(120))
    assert world.reasons(job) == ["JOB_PAUSED"]


async def test_a_change_that_keeps_losing_gives_up(world: World) -> None:
    job = await world.job()
    tries = 0

    async def edited(name: str) -> None:
        nonlocal tries
        if name == "jobs.replace.before":
            tries += 1
            stored = world.stored(job)
            world.jobs._jobs[job.job_id] = replace(stored, revision=stored.revision + 1)

    world.on_checkpoint = edited
    with pytest.raises(AbortedError) as raised:
        await world.pause(job)
    assert (raised.value.reason, tries) == ("CONCURRENT_CHANGE", MAX_TRIES)


@pytest.mark.parametrize(
    "checkpoint", ["executions.insert_new.after", "jobs.replace.after", "executions.withdraw.before"]
)
async def test_a_pause_that_dies_anywhere_leaves_every_fire_on_record(world: World, checkpoint: str) -> None:
    job = await world.job(catch_up=CatchUpPolicy(CatchUpMode.ALL))
    await world.advance(60)
    await world.tick()
    await world.advance(60)
    world.die_at(checkpoint)
    with pytest.raises(Death):
        await world.pause(job)
    # The caller repeats it.
    await world.pause(job)
    await world.advance(60)
    await world.begin(*(execution.execution_id for execution in world.fires(job).values()))
    assert list(world.fires(job)) == [at(60), at(120)]
    assert world.reasons(job) == ["JOB_PAUSED", "JOB_PAUSED"]


async def test_a_resumed_job_fires_from_now_on(world: World) -> None:
    job = await world.job()
    await world.pause(job)
    await world.advance(10 * MINUTE + 30 * (at(1) - at(0)))
    resumed = await world.resume(job)
    assert (resumed.state, resumed.next_fire_time, resumed.next_due_time) == (JobState.ACTIVE, at(660), at(660))
    assert (resumed.state_reason, resumed.state_note) == ("", "")
    assert world.nudge.notified[-1] == at(660)
    await world.advance(60)
    await world.tick()
    assert list(world.fires(job)) == [at(660)]


async def test_resuming_records_what_fired_before_the_scheduler_stopped_the_job(world: World) -> None:
    # The dispatcher was away while the fourth and fifth fire came, and the job ended with the failure of the third.
    job = await world.job(
        retry=RetryPolicy(max_attempts=1), max_consecutive_failures=1, catch_up=CatchUpPolicy(CatchUpMode.ALL)
    )
    await world.advance(60)
    (execution_id,) = await world.delivered()
    granted = await world.begun(execution_id)
    await world.extends("x1", {execution_id: 1})
    await world.advance(2 * MINUTE)
    await world.extends("x1", {execution_id: 1})
    await world.report(granted, 503)
    assert world.job_state(job) is JobState.FAILED
    await world.advance(5 * MINUTE)
    await world.resume(job)
    assert world.reasons(job) == ["MAX_ATTEMPTS", "JOB_FAILED", "JOB_FAILED"]
    assert world.stored(job).next_fire_time == at(540)


async def test_a_resume_of_a_job_without_a_further_fire_is_refused(world: World) -> None:
    job = await world.job(schedule=once(at(60)))
    await world.pause(job)
    await world.advance(60)
    with pytest.raises(FailedPreconditionError) as raised:
        await world.resume(job)
    assert raised.value.reason == "NO_FURTHER_FIRE"
    assert world.job_state(job) is JobState.PAUSED


async def test_a_deleted_job_leaves_nothing_that_runs(world: World) -> None:
    job = await world.job()
    await world.advance(60)
    (running,) = await world.delivered()
    granted = await world.begun(running)
    await world.advance(60)
    (waiting,) = await world.delivered()
    await world.advance(59)
    (ahead,) = await world.delivered()
    deleted = await world.delete(job)
    assert (deleted.state, deleted.next_fire_time) == (JobState.DELETED, None)
    assert deleted.purge_time == world.clock.now() + RETENTION
    assert world.state(waiting) == (S.SKIPPED, "JOB_DELETED")
    assert (await world.begin(ahead)).refused[ahead].reason == "NOT_FOUND"
    await world.extends("x1", {running: 1})
    assert await world.report(granted)
    assert world.execution(running).state is S.SUCCEEDED
    assert world.job_state(job) is JobState.DELETED


async def test_changes_are_repeatable(world: World) -> None:
    job = await world.job()
    first = await world.pause(job)
    await world.advance(5)
    assert await world.pause(job) == first
    resumed = await world.resume(job)
    assert await world.resume(job) == resumed
    deleted = await world.delete(job)
    await world.advance(5)
    assert await world.delete(job) == deleted


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        (JobState.COMPLETED, {"pause", "resume"}),
        (JobState.FAILED, {"pause"}),
        (JobState.DELETED, {"pause", "resume"}),
        (JobState.PAUSED, set()),
        (JobState.ACTIVE, set()),
    ],
)
async def test_the_state_allows_a_change_or_not(world: World, state: JobState, refused: set[str]) -> None:
    for name in ("pause", "resume", "delete"):
        job = await world.job()
        world.jobs._jobs[job.job_id] = replace(job, state=state)
        change = getattr(world, name)
        if name in refused:
            with pytest.raises(FailedPreconditionError) as raised:
                await change(job)
            assert raised.value.reason == "WRONG_JOB_STATE"
        else:
            await change(job)


@pytest.mark.parametrize("name", ["pause", "resume", "delete"])
async def test_an_etag_guards_a_change(world: World, name: str) -> None:
    job = await world.job()
    change = getattr(world.changes, name)
    with pytest.raises(AbortedError) as raised:
        await change(CALLER, job.job_id, etag="r7")
    assert raised.value.reason == "ETAG_MISMATCH"
    assert world.stored(job) == job
    await change(CALLER, job.job_id, etag="r1")


@pytest.mark.parametrize("scope", [OrgScope("org-b"), OrgScope(SCOPE.org_id, frozenset({"other"}))], ids=str)
@pytest.mark.parametrize("name", ["pause", "resume", "delete"])
async def test_a_job_of_others_is_not_there(world: World, name: str, scope: OrgScope) -> None:
    job = await world.job()
    with pytest.raises(NotFoundError):
        await getattr(world.changes, name)(Caller("c", scope, frozenset()), job.job_id)
    assert world.stored(job) == job


async def test_a_note_is_kept_and_bounded(world: World) -> None:
    job = await world.job(schedule=EVERY_MINUTE)
    with pytest.raises(InvalidArgumentError) as raised:
        await world.changes.pause(CALLER, job.job_id, note="x" * (MAX_NOTE + 1))
    assert (raised.value.violations[0].field, raised.value.reason) == ("note", "TOO_LONG")
    with pytest.raises(InvalidArgumentError) as raised:
        await world.changes.pause(CALLER, job.job_id, note="a\0b")
    assert (raised.value.violations[0].field, raised.value.reason) == ("note", "INVALID_TEXT")
    assert (await world.changes.pause(CALLER, job.job_id, note="maintenance")).state_note == "maintenance"


async def test_a_bulk_change_reads_few_jobs_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(PAGE + 50):
        await world.job()
    limits: list[int] = []
    find_page = world.jobs.find_page

    async def noted(scope: OrgScope, where: JobFilter, *, after: str, limit: int) -> Sequence[Job]:
        limits.append(limit)
        return await find_page(scope, where, after=after, limit=limit)

    monkeypatch.setattr(world.jobs, "find_page", noted)
    done = await BulkChangeState(world.jobs, world.changes).pause(CALLER, "default", {}, "")
    assert (done.changed_count, done.more) == (PAGE + 50, False)
    assert limits == [PAGE + 1, PAGE + 1]
