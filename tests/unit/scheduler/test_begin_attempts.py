"""Grants, lost leases and overlap, with another replica or a death in between."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.domain.begin import MAX_LOSSES
from services.scheduler.domain.execution import DeliveryPath, ExecutionState, Outcome, Phase
from services.scheduler.domain.job import CatchUpMode, CatchUpPolicy, Job, JobState, OnUnknownOutcome, OverlapPolicy
from services.scheduler.domain.outcome import Result
from services.scheduler.usecases.begin_attempts import QUEUE_RECHECK
from tests.support.scheduler_values import CALLER, MINUTE, SECOND, at, once
from tests.support.scheduler_world import LEASE, Death, World

S = ExecutionState


async def due(world: World, **definition: Any) -> tuple[Job, str]:
    """Store a one-time job, and let it come due."""
    job = await world.job(**{"schedule": once(world.clock.now() + SECOND), **definition})
    await world.advance(1)
    (execution_id,) = await world.delivered()
    return job, execution_id


async def recurring(world: World, overlap: OverlapPolicy, fires: int = 2) -> tuple[Job, list[str]]:
    """Store a job that fires every minute, and let it fire some times; nothing began yet."""
    job = await world.job(overlap=overlap, catch_up=CatchUpPolicy(CatchUpMode.ALL))
    delivered: list[str] = []
    for _ in range(fires):
        await world.advance(60)
        delivered += await world.delivered()
    return job, delivered


async def test_a_grant_carries_what_the_executor_needs(world: World) -> None:
    job, execution_id = await due(world)
    batch = await world.begin(execution_id, "gone-1")
    (granted,) = batch.granted
    assert (granted.attempt_number, granted.fencing_token) == (1, 1)
    assert granted.job == world.stored(job)
    assert batch.refused["gone-1"].reason == "NOT_FOUND"
    stored = world.execution(execution_id)
    assert (stored.state, stored.wake_time, stored.delivery_path) == (S.RUNNING, at(1) + LEASE, DeliveryPath.STREAM)


async def test_a_repeated_request_returns_the_same_grants(world: World) -> None:
    _, execution_id = await due(world)
    first = await world.begin(execution_id, request="r")
    again = await world.begin(execution_id, request="r")
    assert [(g.attempt_number, g.fencing_token) for g in again.granted] == [(1, 1)]
    assert [g.job for g in again.granted] == [g.job for g in first.granted]
    assert world.execution(execution_id).attempt_number == 1


async def test_a_request_whose_answer_was_lost_gets_its_grants_by_repetition(world: World) -> None:
    _, execution_id = await due(world)
    world.die_at("executions.grant.after")
    with pytest.raises(Death):
        await world.begin(execution_id, request="r")
    (granted,) = (await world.begin(execution_id, request="r")).granted
    assert granted.fencing_token == 1


async def test_a_request_repeated_at_a_replica_with_an_old_memory_gets_the_token_of_its_grant(world: World) -> None:
    _, execution_id = await due(world)
    materialized = world.executions._recalled[execution_id]
    assert await world.report(await world.begun(execution_id), result=Result.RELEASED)
    await world.begin(execution_id, request="r")
    # The answer is lost, and the repetition comes to the replica that heard of nothing since the tick.
    world.executions._recalled[execution_id] = materialized
    (granted,) = (await world.begin(execution_id, request="r")).granted
    assert granted.fencing_token == world.execution(execution_id).fencing_token == 2
    assert await world.report(granted)


async def test_a_poll_whose_answer_was_lost_gets_its_grants_by_repetition(world: World) -> None:
    # Else the lease would run out, and a job that must not be sent twice would end without having been sent at all.
    _, execution_id = await due(world, on_unknown_outcome=OnUnknownOutcome.FAIL)
    await world.advance(2)
    world.die_at("executions.grant.after")
    with pytest.raises(Death):
        await world.poll(request="r")
    (granted,) = (await world.begins.begun("r")).granted
    assert (granted.execution.execution_id, granted.fencing_token) == (execution_id, 1)
    assert (await world.begins.begun("s")).granted == []


@pytest.mark.parametrize("loser_goes_first", [True, False])
async def test_of_two_that_begin_at_once_one_wins(world: World, loser_goes_first: bool) -> None:
    _, execution_id = await due(world)
    wins: list[str] = []

    async def other() -> None:
        batch = await world.begin(execution_id, executor="x2")
        wins.extend("x2" for _ in batch.granted)

    world.at("executions.grant.before" if loser_goes_first else "executions.grant.after", other)
    batch = await world.begin(execution_id, executor="x1")
    wins.extend("x1" for _ in batch.granted)
    assert wins == (["x2"] if loser_goes_first else ["x1"])
    assert world.execution(execution_id).executor_id == wins[0]
    assert world.execution(execution_id).fencing_token == 1


async def test_what_no_delivery_reached_comes_by_the_poll_path_after_its_grace(world: World) -> None:
    _, execution_id = await due(world)
    await world.advance(1.999)
    assert (await world.poll()).granted == []
    await world.advance(0.001)
    (granted,) = (await world.poll()).granted
    assert granted.execution.execution_id == execution_id
    assert world.execution(execution_id).delivery_path is DeliveryPath.POLL
    assert (await world.begin(execution_id)).refused[execution_id].reason == "LEASED"


async def test_while_redis_is_away_all_that_is_due_is_handed_out_within_the_lead(world: World) -> None:
    await world.job(schedule=once(at(2)))
    await world.delivered()
    await world.advance(1.749)
    assert (await world.begins.poll_all("x1", "r1", 10)).granted == []
    await world.advance(0.001)
    assert len((await world.begins.poll_all("x1", "r2", 10)).granted) == 1


async def test_a_poll_takes_no_more_than_it_may_and_says_that_there_is_more(world: World) -> None:
    for _ in range(5):
        await world.job(schedule=once(at(1)))
    await world.advance(1)
    await world.delivered()
    await world.advance(2)
    batch = await world.poll(limit=3)
    assert (len(batch.granted), batch.more) == (3, True)
    batch = await world.poll(limit=3)
    assert (len(batch.granted), batch.more) == (2, False)


# Lost leases


async def test_a_lost_lease_is_granted_anew_with_a_higher_token(world: World) -> None:
    _, execution_id = await due(world)
    first = await world.begun(execution_id)
    await world.advance(14.999)
    assert (await world.poll()).granted == []
    await world.advance(0.001)
    (second,) = (await world.poll()).granted
    assert (second.attempt_number, second.fencing_token) == (2, 2)
    (lost,) = world.execution(execution_id).attempts
    assert (lost.outcome, lost.number, lost.executor_id, lost.decision) == (Outcome.LOST, 1, "x1", "RETRY")
    # The first one wakes up: its report changes nothing (promise P3).
    assert not await world.report(first)
    assert world.execution(execution_id).state is S.RUNNING
    assert await world.report(second)
    assert world.execution(execution_id).state is S.SUCCEEDED
    assert not await world.report(first, 503)
    assert world.execution(execution_id).state is S.SUCCEEDED


async def test_a_renewed_lease_is_not_lost(world: World) -> None:
    _, execution_id = await due(world)
    await world.begun(execution_id)
    for _ in range(5):
        await world.advance(10)
        verdicts = await world.extends("x1", {execution_id: 1})
        assert [verdict.value for verdict in verdicts.values()] == ["EXTENDED"]
        assert (await world.poll()).granted == []


async def test_a_lost_lease_of_what_must_not_be_sent_twice_ends_unknown(world: World) -> None:
    job, execution_id = await due(world, on_unknown_outcome=OnUnknownOutcome.FAIL)
    first = await world.begun(execution_id)
    await world.advance(15)
    batch = await world.poll()
    assert (batch.granted, batch.refused[execution_id].reason) == ([], "FINAL")
    assert world.state(execution_id) == (S.UNKNOWN, "EXECUTOR_LOST")
    assert not await world.report(first)
    assert world.state(execution_id) == (S.UNKNOWN, "EXECUTOR_LOST")
    assert [verdict.value for verdict in (await world.extends("x1", {execution_id: 1})).values()] == ["LOST"]
    assert world.stored(job).consecutive_failures == 1
    assert world.job_state(job) is JobState.COMPLETED


async def test_a_report_that_comes_before_the_end_of_a_lost_lease_wins(world: World) -> None:
    job, execution_id = await due(world, on_unknown_outcome=OnUnknownOutcome.FAIL)
    first = await world.begun(execution_id)
    await world.advance(15)
    counted: list[bool] = []

    async def report() -> None:
        counted.append(await world.report(first))

    world.at("executions.finish.before", report)
    await world.poll()
    assert counted == [True]
    assert world.execution(execution_id).state is S.SUCCEEDED
    assert world.stored(job).consecutive_failures == 0


async def test_a_poison_execution_ends(world: World) -> None:
    job, execution_id = await due(world)
    await world.begun(execution_id)
    grants = 1
    for _ in range(20):
        await world.advance(15)
        grants += len((await world.poll()).granted)
    assert grants == MAX_LOSSES
    assert world.state(execution_id) == (S.FAILED, "EXECUTOR_LOST_REPEATEDLY")
    attempts = world.execution(execution_id).attempts
    assert [attempt.outcome for attempt in attempts] == [Outcome.LOST] * MAX_LOSSES
    assert [attempt.number for attempt in attempts] == [1, 2, 3, 4, 5]
    assert world.job_state(job) is JobState.COMPLETED


async def test_a_lost_attempt_spares_the_budget_of_retries(world: World) -> None:
    _, execution_id = await due(world)
    await world.begun(execution_id)
    await world.advance(15)
    (granted,) = (await world.poll()).granted
    for wait in (2, 4):
        assert await world.report(granted, 503)
        await world.advance(wait)
        granted = await world.begun(execution_id)
    assert (granted.attempt_number, granted.fencing_token) == (4, 4)
    assert await world.report(granted, 503)
    assert world.state(execution_id) == (S.FAILED, "MAX_ATTEMPTS")


async def test_an_execution_of_a_purged_job_ends(world: World) -> None:
    job, execution_id = await due(world)
    other, running = await due(world)
    await world.begun(running)
    world.jobs._jobs.pop(job.job_id)
    world.jobs._jobs.pop(other.job_id)
    await world.begin(execution_id)
    await world.advance(15)
    await world.poll()
    assert world.state(execution_id) == (S.SKIPPED, "JOB_DELETED")
    assert world.state(running) == (S.UNKNOWN, "JOB_DELETED")


# Overlap


async def test_overlap_skip_leaves_the_fire_out(world: World) -> None:
    job, (first, second) = await recurring(world, OverlapPolicy.SKIP)
    granted = await world.begun(first)
    batch = await world.begin(second)
    assert batch.refused[second].reason == "SKIPPED"
    assert world.state(second) == (S.SKIPPED, "OVERLAP")
    await world.report(granted)
    await world.advance(60)
    (third,) = await world.delivered()
    assert (await world.run(third)).state is S.SUCCEEDED
    assert world.reasons(job) == ["SUCCEEDED", "OVERLAP", "SUCCEEDED"]


async def test_overlap_allow_runs_both(world: World) -> None:
    _, (first, second) = await recurring(world, OverlapPolicy.ALLOW)
    batch = await world.begin(first, second)
    assert len(batch.granted) == 2


async def test_overlap_queue_one_runs_the_second_after_the_first_and_skips_the_third(world: World) -> None:
    job, (first, second, third) = await recurring(world, OverlapPolicy.QUEUE_ONE, fires=3)
    granted = await world.begun(first)
    batch = await world.begin(second, third)
    assert [batch.refused[execution_id].reason for execution_id in (second, third)] == ["QUEUED", "SKIPPED"]
    assert world.state(third) == (S.SKIPPED, "OVERLAP")
    assert await world.delivered() == []
    assert (await world.poll()).granted == []
    assert await world.report(granted)
    # Its end wakes the one that waits, at once.
    assert world.nudge.notified[-1] == world.clock.now()
    assert await world.delivered() == [second]
    assert (await world.run(second)).state is S.SUCCEEDED
    assert world.reasons(job) == ["SUCCEEDED", "SUCCEEDED", "OVERLAP"]


async def test_a_lost_wake_up_costs_the_recheck_and_no_more(world: World) -> None:
    _, (first, second) = await recurring(world, OverlapPolicy.QUEUE_ONE)
    granted = await world.begun(first)
    await world.begin(second)
    world.die_at("executions.wake_queued.before")
    with pytest.raises(Death):
        await world.report(granted)
    assert await world.delivered() == []
    await world.advance(QUEUE_RECHECK - 2 * SECOND)
    assert await world.delivered() == [second]
    await world.advance(2)
    assert (await world.begin(second)).granted


async def test_one_that_queues_while_the_other_ends_is_not_forgotten(world: World) -> None:
    _, (first, second) = await recurring(world, OverlapPolicy.QUEUE_ONE)
    granted = await world.begun(first)

    async def end() -> None:
        await world.report(granted)

    world.at("executions.queue_behind.before", end)
    refusal = (await world.begin(second)).refused[second]
    assert (refusal.reason, refusal.retry_time) == ("QUEUED", world.clock.now())
    assert await world.delivered() == [second]
    assert (await world.begin(second)).granted


@pytest.mark.parametrize("overlap", [OverlapPolicy.SKIP, OverlapPolicy.QUEUE_ONE])
async def test_overlap_is_decided_at_the_due_time_and_not_by_the_lead_before_it(
    world: World, overlap: OverlapPolicy
) -> None:
    job = await world.job(overlap=overlap)
    await world.advance(60)
    (first,) = await world.delivered()
    granted = await world.begun(first)
    await world.advance(59.75)
    await world.extends("x1", {first: 1})
    (second,) = await world.delivered()
    refusal = (await world.begin(second)).refused[second]
    assert (refusal.reason, refusal.retry_time) == ("OVERLAP_UNDECIDED", at(120))
    assert world.execution(second).state is S.READY
    await world.report(granted)
    await world.advance(0.25)
    assert (await world.begin(second)).granted
    assert len(world.fires(job)) == 2


async def test_a_retry_that_waits_keeps_other_fires_out(world: World) -> None:
    job, (first, second) = await recurring(world, OverlapPolicy.SKIP)
    granted = await world.begun(first)
    assert await world.report(granted, 503)
    assert (await world.begin(second)).refused[second].reason == "SKIPPED"
    await world.advance(2)
    assert (await world.run(first)).state is S.SUCCEEDED
    assert world.reasons(job) == ["SUCCEEDED", "OVERLAP"]


async def test_requested_executions_stand_outside_of_the_overlap(world: World) -> None:
    job, (first, second) = await recurring(world, OverlapPolicy.SKIP)
    await world.begun(first)
    manual = await world.requests.run(CALLER, job.job_id)
    assert (await world.begin(manual.execution_id)).granted
    assert (await world.begin(second)).refused[second].reason == "SKIPPED"


async def test_a_released_fire_of_a_paused_job_does_not_block_the_job_for_good(world: World) -> None:
    job, (first,) = await recurring(world, OverlapPolicy.SKIP, fires=1)
    assert await world.report(await world.begun(first), result=Result.RELEASED)
    await world.pause(job)
    assert world.state(first) == (S.SKIPPED, "JOB_PAUSED")
    await world.resume(job)
    await world.advance(60)
    (second,) = await world.delivered()
    assert (await world.begin(second)).granted


# Jobs that are held


async def test_what_is_late_beyond_the_window_is_skipped(world: World) -> None:
    job, execution_id = await due(world, catch_up=CatchUpPolicy(window=MINUTE))
    await world.advance(61)
    assert (await world.begin(execution_id)).refused[execution_id].reason == "SKIPPED"
    assert world.state(execution_id) == (S.SKIPPED, "CATCH_UP_WINDOW")
    # It was the last one: the job has nothing more to do.
    assert world.job_state(job) is JobState.COMPLETED


async def test_a_pause_that_the_withdrawal_missed_holds_at_the_beginning(world: World) -> None:
    job, (first,) = await recurring(world, OverlapPolicy.SKIP, fires=1)
    world.die_at("executions.withdraw.before")
    with pytest.raises(Death):
        await world.pause(job)
    assert world.execution(first).state is S.READY
    assert (await world.begin(first)).refused[first].reason == "SKIPPED"
    assert world.state(first) == (S.SKIPPED, "JOB_PAUSED")


async def test_a_skipped_end_leaves_nothing_for_the_poll_path(world: World) -> None:
    job, execution_id = await due(world)
    await world.delete(job)
    assert world.state(execution_id) == (S.SKIPPED, "JOB_DELETED")
    await world.advance(60)
    assert (await world.poll()).granted == []
    assert world.execution(execution_id).phase is None
    assert {execution.phase for execution in world.executions.executions.values()} <= {None, Phase.SETTLING}
