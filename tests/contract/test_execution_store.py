"""What the use cases rely on in an execution store, held against the one in memory and the one in MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from libs.common.clock import SystemClock
from libs.common.errors import NotFoundError
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.execution_store import MongoExecutionStore
from services.scheduler.domain.execution import (
    Cause,
    DeliveryPath,
    Execution,
    ExecutionState,
    Outcome,
    Phase,
    RateLimitObservation,
    ResponseHeader,
    StoredResponse,
)
from services.scheduler.testing.memory_execution_store import MemoryExecutionStore
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.execution_store import Cancellation, ExecutionFilter, ExecutionStore
from tests.support.scheduler_values import (
    LATER,
    NOW,
    RETENTION,
    SCOPE,
    SECOND,
    a_deferral,
    a_finish,
    a_job,
    a_lease,
    a_manual_execution,
    a_retry,
    an_attempt,
    an_execution,
    at,
    grants,
)

ALL = range(256)
ANSWER = StoredResponse(
    200,
    (ResponseHeader("X-A", "b"),),
    "text/plain",
    b"body",
    "zstd",
    4,
    9,
    truncated=True,
    sha256=b"\x00" * 32,
    head=b"head",
    warning="w",
)
EVERYTHING = ExecutionFilter()
GONE = "gone-1"


@pytest.fixture
def store(in_mongo: bool) -> ExecutionStore:
    # The one in memory takes the machine's clock where the other one takes the server's.
    return MongoExecutionStore(RETENTION, AuditOutbox()) if in_mongo else MemoryExecutionStore(RETENTION, SystemClock())


async def read(store: ExecutionStore, execution: Execution) -> Execution:
    return await store.get(OrgScope(execution.org_id), execution.execution_id)


async def read_all(store: ExecutionStore, executions: Collection[Execution]) -> list[Execution]:
    return [await read(store, execution) for execution in executions]


async def insert(store: ExecutionStore, *executions: Execution) -> None:
    await store.insert_new(executions)


async def begun(store: ExecutionStore, execution: Execution | None = None, **changes: Any) -> Execution:
    """Insert and grant an execution; it runs under token 1."""
    execution = execution or an_execution(**changes)
    await store.insert_new([execution])
    assert (await store.grant(a_lease(), grants(execution))).granted == {execution.execution_id}
    return await read(store, execution)


def ids(*executions: Execution) -> list[str]:
    return [execution.execution_id for execution in executions]


# Records and reads


async def test_an_execution_is_read_as_it_was_written(store: ExecutionStore) -> None:
    observation = RateLimitObservation("openai", 3, -1, at(30))
    execution = an_execution(
        state=ExecutionState.SUCCEEDED,
        phase=None,
        wake_time=None,
        exclusive=True,
        attempts=[an_attempt(rate_limit=observation, error_message="ü" * 10, redirect_count=2)],
        response=ANSWER,
        start_time=at(0.005),
        end_time=at(1),
        expire_time=at(100),
        delivery_path=DeliveryPath.POLL,
        trace_id="t",
    )
    plain = an_execution()
    await insert(store, execution, plain)
    stored = await read(store, execution)
    assert replace(stored, attempts=list(stored.attempts)) == execution
    assert await read(store, plain) == plain
    loaded = await store.load([execution.execution_id, GONE])
    assert list(loaded) == [execution.execution_id]
    assert loaded[execution.execution_id].response is None


async def test_a_fire_is_inserted_once(store: ExecutionStore) -> None:
    first, second, third = an_execution(), an_execution(), an_execution()
    await insert(store, first, second)
    ran = await read(store, first)
    await store.grant(a_lease(), grants(ran))
    await insert(store, first, replace(second, state=ExecutionState.SKIPPED, phase=None), third)
    states = [execution.state for execution in await read_all(store, [first, second, third])]
    assert states == [ExecutionState.RUNNING, ExecutionState.READY, ExecutionState.READY]


async def test_of_many_inserts_of_one_fire_at_once_one_wins(store: ExecutionStore) -> None:
    job = a_job()
    copies = [an_execution(job, trace_id=str(number)) for number in range(8)]
    await asyncio.gather(*(store.insert_new([copy]) for copy in copies))
    assert len(await store.find_page(SCOPE, EVERYTHING, after=None, limit=50)) == 1


@pytest.mark.parametrize(
    "scope",
    [OrgScope("org-b"), OrgScope("org-a", frozenset({"other"})), OrgScope("org-a", frozenset())],
    ids=["other org", "other project", "no project"],
)
async def test_an_execution_outside_the_scope_does_not_exist(store: ExecutionStore, scope: OrgScope) -> None:
    execution = an_execution()
    await insert(store, execution)
    with pytest.raises(NotFoundError):
        await store.get(scope, execution.execution_id)
    for where in (EVERYTHING, ExecutionFilter(job_id=execution.job_id), ExecutionFilter(project_id="default")):
        assert not await store.find_page(scope, where, after=None, limit=5)


async def test_a_scope_of_projects_sees_their_executions(store: ExecutionStore) -> None:
    execution = an_execution(project_id="p1")
    await insert(store, execution, an_execution())
    scope = OrgScope("org-a", frozenset({"p1", "p2"}))
    assert await store.get(scope, execution.execution_id) == execution
    assert await store.find_page(scope, EVERYTHING, after=None, limit=5) == [execution]


async def test_a_page_shows_the_latest_fire_first_without_bytes(store: ExecutionStore) -> None:
    job = a_job()
    first, second = an_execution(job, at(0), response=ANSWER), an_execution(job, at(60), trace_id="t")
    manual = replace(a_manual_execution(job, at(60)), project_id="p1", state=ExecutionState.FAILED)
    await insert(store, first, second, manual)

    async def page(**where: Any) -> list[str]:
        return ids(*await store.find_page(SCOPE, ExecutionFilter(**where), after=None, limit=9))

    shown = await store.find_page(SCOPE, EVERYTHING, after=None, limit=9)
    assert ids(*shown) == ids(manual, second, first)
    assert shown[-1].response == replace(ANSWER, body=b"", head=b"")
    assert await page(job_id=job.job_id) == ids(manual, second, first)
    assert await page(job_id="other") == []
    assert await page(project_id="p1") == ids(manual)
    assert await page(states=frozenset({ExecutionState.READY})) == ids(second, first)
    assert await page(states=frozenset({ExecutionState.FAILED, ExecutionState.READY})) == ids(manual, second, first)
    assert await page(causes=frozenset({Cause.MANUAL})) == ids(manual)
    assert await page(trace_id="t") == ids(second)
    assert await page(fire_after=at(60)) == ids(manual, second)
    assert await page(fire_before=at(60)) == ids(first)


async def test_pages_stay_whole_where_fire_times_are_equal_and_new_ones_come(store: ExecutionStore) -> None:
    executions = [an_execution(fire_time=at(60 * (number // 4))) for number in range(12)]
    await insert(store, *executions)
    expected = sorted(executions, key=lambda e: (e.fire_time, e.execution_id), reverse=True)
    seen: list[Execution] = []
    after = None
    while more := await store.find_page(SCOPE, EVERYTHING, after=after, limit=5):
        seen += more
        after = (more[-1].fire_time, more[-1].execution_id)
        await insert(store, an_execution(fire_time=at(600)))
    assert ids(*seen) == ids(*expected)


async def test_a_window_shows_the_earliest_fire_first_with_both_ends(store: ExecutionStore) -> None:
    job = a_job()
    fires = [an_execution(job, at(60 * number)) for number in range(5)]
    await insert(store, *fires, an_execution(fire_time=at(60)))
    found = await store.find_window(job.job_id, at(60), at(180), after=None, limit=2)
    assert ids(*found) == ids(*fires[1:3])
    last = (found[-1].fire_time, found[-1].execution_id)
    assert ids(*await store.find_window(job.job_id, at(60), at(180), after=last, limit=9)) == ids(fires[3])


# Grants


async def test_a_grant_takes_a_ready_execution_under_a_lease(store: ExecutionStore) -> None:
    execution = an_execution(wait_reason="RATE_LIMIT")
    await insert(store, execution)
    result = await store.grant(a_lease(), grants(execution))
    assert (result.granted, result.overlapping) == ({execution.execution_id}, frozenset())
    expected = replace(
        execution,
        state=ExecutionState.RUNNING,
        phase=Phase.LEASED,
        wake_time=at(15),
        executor_id="executor-1",
        begin_request_id="request-1",
        begin_time=NOW,
        delivery_path=DeliveryPath.STREAM,
        wait_reason="",
        fencing_token=1,
        attempt_number=1,
    )
    assert replace(await read(store, execution), attempts=()) == expected


async def test_many_alike_are_granted_together(store: ExecutionStore) -> None:
    executions = [an_execution() for _ in range(20)]
    await insert(store, *executions)
    result = await store.grant(a_lease(), grants(*executions))
    assert result.granted == set(ids(*executions))
    assert {execution.fencing_token for execution in await read_all(store, executions)} == {1}


async def test_a_grant_is_refused_to_who_comes_second(store: ExecutionStore) -> None:
    executions = [an_execution() for _ in range(4)] + [an_execution(exclusive=True)]
    await insert(store, *executions)
    first = await store.grant(a_lease("r1", "x1"), grants(*executions[2:]))
    second = await store.grant(a_lease("r2", "x2"), grants(*executions))
    assert first.granted == set(ids(*executions[2:]))
    assert (second.granted, second.overlapping) == (set(ids(*executions[:2])), frozenset())
    holders = [execution.executor_id for execution in await read_all(store, executions)]
    assert holders == ["x2", "x2", "x1", "x1", "x1"]


async def test_of_many_grants_at_once_one_wins(store: ExecutionStore) -> None:
    executions = [an_execution(exclusive=number % 2 == 0) for number in range(6)]
    await insert(store, *executions)
    results = await asyncio.gather(
        *(store.grant(a_lease(f"r{number}", f"x{number}"), grants(*executions)) for number in range(6))
    )
    winners = [execution_id for result in results for execution_id in result.granted]
    assert sorted(winners) == sorted(ids(*executions))
    for number, result in enumerate(results):
        for execution in [e for e in executions if e.execution_id in result.granted]:
            assert (await read(store, execution)).executor_id == f"x{number}"
    assert {execution.fencing_token for execution in await read_all(store, executions)} == {1}


async def test_a_repeated_grant_of_one_request_is_the_same_grant(store: ExecutionStore) -> None:
    executions = [an_execution(), an_execution(exclusive=True)]
    await insert(store, *executions)
    first = await store.grant(a_lease(), grants(*executions))
    again = await store.grant(a_lease(), grants(*executions))
    assert again.granted == first.granted == set(ids(*executions))
    assert [execution.attempt_number for execution in await read_all(store, executions)] == [1, 1]


async def test_a_grant_under_another_token_is_not_the_one_of_its_request(store: ExecutionStore) -> None:
    # As read before it was begun and handed back; the request was granted it since, and its answer was lost.
    former = an_execution()
    await insert(store, former)
    await store.grant(a_lease("request-0", "executor-0"), grants(former))
    await store.wait([a_deferral(former, released=True, until=NOW)])
    await store.grant(a_lease(), grants(await read(store, former)))
    again = await store.grant(a_lease(), grants(former))
    assert again.granted == frozenset()
    assert (await read(store, former)).fencing_token == 2


async def test_a_grant_of_what_is_not_available_or_gone_is_refused(store: ExecutionStore) -> None:
    early = an_execution(available_time=at(5.001))
    near = an_execution(available_time=at(5))
    final = an_execution(state=ExecutionState.SKIPPED, phase=None, wake_time=None)
    await insert(store, early, near, final)
    result = await store.grant(a_lease(), grants(early, near, final, an_execution()))
    assert (result.granted, result.overlapping) == ({near.execution_id}, frozenset())


async def test_a_lost_lease_is_granted_anew_with_the_loss_on_record(store: ExecutionStore) -> None:
    held = await begun(store, exclusive=True)
    lost = an_attempt(Outcome.LOST, token=1)
    early = await store.grant(a_lease("r2", "x2", time=at(14.999)), grants(held, lost=lost))
    assert (early.granted, early.overlapping) == (frozenset(), frozenset())
    result = await store.grant(a_lease("r2", "x2", time=at(15)), grants(held, lost=lost))
    assert result.granted == {held.execution_id}
    taken = await read(store, held)
    assert (taken.fencing_token, taken.attempt_number, taken.loss_count) == (2, 2, 1)
    assert (taken.executor_id, taken.wake_time, list(taken.attempts)) == ("x2", at(30), [lost])
    # The read is stale by now.
    assert not (await store.grant(a_lease("r3", time=at(60)), grants(held, lost=lost))).granted


async def test_a_renewed_lease_is_not_lost(store: ExecutionStore) -> None:
    held = await begun(store)
    await store.extend("executor-1", {held.execution_id: 1}, at(100))
    result = await store.grant(a_lease("r2", time=at(20)), grants(held, lost=an_attempt(Outcome.LOST)))
    assert not result.granted


async def test_one_exclusive_execution_of_a_job_runs(store: ExecutionStore) -> None:
    job, other = a_job(), a_job()
    first, second, third = (an_execution(job, at(n), exclusive=True) for n in range(3))
    foreign, manual = an_execution(other, exclusive=True), a_manual_execution(job)
    await insert(store, first, second, third, foreign, manual)
    result = await store.grant(a_lease(), grants(first))
    assert result.granted == {first.execution_id}
    assert await store.is_slot_taken(job.job_id)
    assert not await store.is_slot_taken(other.job_id)
    result = await store.grant(a_lease("r2"), grants(second, third, foreign, manual))
    assert result.granted == set(ids(foreign, manual))
    assert result.overlapping == set(ids(second, third))
    assert [execution.fencing_token for execution in await read_all(store, [second, third])] == [0, 0]


async def test_of_exclusive_grants_in_one_batch_one_wins(store: ExecutionStore) -> None:
    job = a_job()
    executions = [an_execution(job, at(n), exclusive=True) for n in range(3)]
    await insert(store, *executions)
    result = await store.grant(a_lease(), grants(*executions))
    assert len(result.granted) == 1
    assert result.granted | result.overlapping == set(ids(*executions))


async def test_a_waiting_retry_keeps_the_slot_and_an_end_frees_it(store: ExecutionStore) -> None:
    job = a_job()
    held = await begun(store, an_execution(job, exclusive=True))
    await store.wait([a_retry(held)])
    second = an_execution(job, at(1), exclusive=True)
    await insert(store, second)
    assert (await store.grant(a_lease("r2"), grants(second))).overlapping == {second.execution_id}
    again = await read(store, held)
    assert (await store.grant(a_lease("r3", time=LATER), grants(again))).granted == {held.execution_id}
    await store.finish([a_finish(held, token=2)])
    assert not await store.is_slot_taken(job.job_id)
    assert (await store.grant(a_lease("r4"), grants(second))).granted == {second.execution_id}


async def test_what_a_request_was_granted_is_found_while_its_leases_hold(store: ExecutionStore) -> None:
    executions = [an_execution() for _ in range(3)]
    await insert(store, *executions)
    await store.grant(a_lease("r1"), grants(*executions[:2]))
    await store.grant(a_lease("r2"), grants(executions[2]))
    await store.finish([a_finish(executions[1])])
    assert ids(*await store.find_begun("r1", at(14))) == ids(executions[0])
    assert await store.find_begun("r1", at(15)) == []
    assert await store.find_begun("r3", NOW) == []


# Renewals


async def test_a_renewal_tells_what_still_holds(store: ExecutionStore) -> None:
    held, stale, done, cancelled = [await begun(store) for _ in range(4)]
    await store.grant(a_lease("r2", time=at(15)), grants(stale, lost=an_attempt(Outcome.LOST)))
    await store.finish([a_finish(done)])
    assert await store.request_cancel(cancelled, Cancellation("CANCELLED_BY_CALLER", "somebody"))
    leases = {execution.execution_id: 1 for execution in (held, stale, done, cancelled)} | {GONE: 1}
    assert await store.extend("executor-1", leases, at(60)) == {
        held.execution_id: "",
        cancelled.execution_id: "CANCELLED_BY_CALLER",
    }
    wakes = [execution.wake_time for execution in await read_all(store, [held, stale, done, cancelled])]
    assert wakes == [at(60), at(30), None, at(60)]


async def test_a_renewal_by_another_executor_or_token_changes_nothing(store: ExecutionStore) -> None:
    held = await begun(store)
    assert await store.extend("executor-2", {held.execution_id: 1}, at(60)) == {}
    assert await store.extend("executor-1", {held.execution_id: 2}, at(60)) == {}
    assert (await read(store, held)).wake_time == at(15)


# Reports


async def test_a_success_ends_an_execution(store: ExecutionStore) -> None:
    held = await begun(store, exclusive=True)
    write = a_finish(held, response=ANSWER, trace_id="t", lag_micros=1500)
    assert await store.finish([write]) == {held.execution_id}
    ended = await read(store, held)
    assert (ended.state, ended.phase, ended.wake_time, ended.available_time) == (
        ExecutionState.SUCCEEDED,
        None,
        None,
        None,
    )
    assert (ended.end_time, ended.expire_time) == (at(1), at(1) + RETENTION)
    assert (ended.reported_token, ended.begin_request_id) == (1, "")
    assert (ended.response, ended.trace_id, ended.lag_micros, ended.start_time) == (ANSWER, "t", 1500, NOW)
    assert list(ended.attempts) == [write.attempt]


async def test_ends_of_a_batch_are_each_their_own_and_stored_as_they_are(store: ExecutionStore) -> None:
    """Whatever an answer is made of, a database that evaluates updates must not evaluate it."""
    held = [await begun(store) for _ in range(3)]
    texts = ["$state", "$$ROOT", "{$literal: 1}"]
    writes = [
        a_finish(
            execution,
            reason=text,
            response=replace(ANSWER, content_type=text, body=text.encode()),
            attempt=an_attempt(Outcome.SUCCEEDED, error_message=text, end_time=at(n)),
            trace_id=text,
            lag_micros=n,
        )
        for n, (execution, text) in enumerate(zip(held, texts, strict=True))
    ]
    assert await store.finish(writes) == set(ids(*held))
    for write, execution in zip(writes, held, strict=True):
        ended = await read(store, execution)
        assert (ended.state_reason, ended.response, list(ended.attempts)) == (
            write.reason,
            write.response,
            [write.attempt],
        )
        assert (ended.trace_id, ended.lag_micros) == (write.trace_id, write.lag_micros)


async def test_a_repeated_report_counts_as_applied_and_changes_nothing(store: ExecutionStore) -> None:
    first, second = await begun(store), await begun(store)
    writes = [a_finish(first), a_finish(second, state=ExecutionState.FAILED, settle=True)]
    assert await store.finish(writes) == set(ids(first, second))
    before = await read_all(store, [first, second])
    assert await store.finish(writes) == set(ids(first, second))
    assert await read_all(store, [first, second]) == before
    retried = await begun(store)
    assert await store.wait([a_retry(retried)]) == {retried.execution_id}
    assert await store.wait([a_retry(retried, until=at(99))]) == {retried.execution_id}
    assert (await read(store, retried)).wake_time == LATER


async def test_a_stale_report_changes_nothing_and_counts_not(store: ExecutionStore) -> None:
    held, fresh = await begun(store), await begun(store)
    await store.grant(a_lease("r2", "x2", time=at(15)), grants(held, lost=an_attempt(Outcome.LOST)))
    before = await read(store, held)
    assert await store.finish([a_finish(held), a_finish(fresh)]) == {fresh.execution_id}
    assert await store.wait([a_retry(held), a_deferral(held)]) == frozenset()
    assert await read(store, held) == before
    # Nor after the new holder has reported.
    assert await store.finish([a_finish(held, token=2)]) == {held.execution_id}
    assert await store.finish([a_finish(held)]) == frozenset()
    assert await store.wait([a_retry(held)]) == frozenset()


async def test_a_final_state_never_changes(store: ExecutionStore) -> None:
    held = await begun(store)
    await store.finish([a_finish(held, state=ExecutionState.FAILED, reason="HTTP_STATUS")])
    ended = await read(store, held)
    assert await store.finish([a_finish(held)]) == frozenset()
    assert await store.wait([a_retry(held)]) == frozenset()
    assert not (await store.grant(a_lease("r2", time=at(60)), grants(ended))).granted
    assert not await store.queue_behind(ended, ended.job_id, at(30))
    assert not await store.cancel_ready(ended, Cancellation("R", "a"), at(2))
    assert not await store.request_cancel(ended, Cancellation("R", "a"))
    assert await read(store, held) == ended


async def test_a_late_report_of_a_lost_lease_that_ended_the_execution_does_not_count(store: ExecutionStore) -> None:
    held = await begun(store)
    end = a_finish(
        held,
        state=ExecutionState.UNKNOWN,
        reason="EXECUTOR_LOST",
        attempt=an_attempt(Outcome.LOST),
        settle=True,
        is_report=False,
    )
    assert await store.finish([end]) == {held.execution_id}
    # Another replica that saw the same lost lease finds it done.
    assert await store.finish([end]) == {held.execution_id}
    assert await store.finish([a_finish(held)]) == frozenset()
    assert await store.wait([a_retry(held)]) == frozenset()
    assert (await read(store, held)).state is ExecutionState.UNKNOWN


async def test_a_renewed_lease_is_not_ended_as_lost(store: ExecutionStore) -> None:
    held = await begun(store)
    await store.extend("executor-1", {held.execution_id: 1}, at(40))
    lost = an_attempt(Outcome.LOST)
    end = a_finish(held, is_report=False, state=ExecutionState.UNKNOWN, attempt=lost, lease_lost=True, end_time=at(20))
    assert not await store.finish([end])
    assert (await read(store, held)).state is ExecutionState.RUNNING
    assert await store.finish([replace(end, end_time=at(40))]) == {held.execution_id}


async def test_an_end_of_a_lost_lease_does_not_count_once_the_holder_has_reported(store: ExecutionStore) -> None:
    held, retried = await begun(store), await begun(store)
    await store.finish([a_finish(held)])
    await store.wait([a_retry(retried)])
    ends = [
        a_finish(execution, state=ExecutionState.FAILED, attempt=an_attempt(Outcome.LOST), is_report=False)
        for execution in (held, retried)
    ]
    assert await store.finish(ends) == frozenset()


async def test_a_skip_ends_a_ready_execution_and_frees_its_slots(store: ExecutionStore) -> None:
    job = a_job()
    queued = an_execution(job, exclusive=True)
    await insert(store, queued)
    await store.queue_behind(queued, job.job_id, at(30))
    skip = a_finish(
        queued,
        token=0,
        expected=ExecutionState.READY,
        state=ExecutionState.SKIPPED,
        reason="JOB_PAUSED",
        attempt=None,
        is_report=False,
    )
    assert await store.finish([skip]) == {queued.execution_id}
    ended = await read(store, queued)
    assert (ended.state, ended.state_reason, ended.phase) == (ExecutionState.SKIPPED, "JOB_PAUSED", None)
    second = an_execution(job, at(1), exclusive=True)
    await insert(store, second)
    assert await store.queue_behind(second, job.job_id, at(30))


async def test_a_skip_loses_against_a_grant(store: ExecutionStore) -> None:
    held = await begun(store)
    skip = a_finish(
        held, token=0, expected=ExecutionState.READY, state=ExecutionState.SKIPPED, attempt=None, is_report=False
    )
    assert await store.finish([skip]) == frozenset()
    assert (await read(store, held)).state is ExecutionState.RUNNING


async def test_a_retry_waits_with_its_attempt_on_record(store: ExecutionStore) -> None:
    held = await begun(store)
    write = a_retry(held, response=ANSWER, lag_micros=7)
    assert await store.wait([write]) == {held.execution_id}
    waiting = await read(store, held)
    assert (waiting.state, waiting.phase) == (ExecutionState.READY, Phase.WAITING)
    assert (waiting.wake_time, waiting.available_time, waiting.wait_reason) == (LATER, LATER, "")
    assert (waiting.attempt_number, waiting.deferral_count, waiting.reported_token) == (1, 0, 1)
    assert (waiting.fencing_token, waiting.begin_request_id) == (1, "")
    assert (waiting.response, waiting.lag_micros, list(waiting.attempts)) == (ANSWER, 7, [write.attempt])


async def test_a_deferral_gives_the_attempt_back_and_is_counted_and_a_release_is_not(store: ExecutionStore) -> None:
    deferred, released = await begun(store), await begun(store)
    await store.wait([a_deferral(deferred), a_deferral(released, until=NOW, released=True)])
    waiting = await read(store, deferred)
    assert (waiting.attempt_number, waiting.deferral_count, waiting.wait_reason) == (0, 1, "RATE_LIMIT")
    back = await read(store, released)
    assert (back.attempt_number, back.deferral_count, back.available_time) == (0, 0, NOW)
    assert (await store.grant(a_lease("r2"), grants(back))).granted == {released.execution_id}
    again = await read(store, released)
    assert (again.attempt_number, again.fencing_token) == (1, 2)


async def test_the_first_start_stays(store: ExecutionStore) -> None:
    held = await begun(store)
    await store.wait([a_retry(held, attempt=an_attempt(start_time=at(0.004)))])
    await store.grant(a_lease("r2", time=LATER), grants(await read(store, held)))
    await store.finish([a_finish(held, token=2, attempt=an_attempt(token=2, start_time=at(10)))])
    ended = await read(store, held)
    assert ended.start_time == at(0.004)
    assert [attempt.start_time for attempt in ended.attempts] == [at(0.004), at(10)]


async def test_the_latest_attempts_are_kept(store: ExecutionStore) -> None:
    held = await begun(store)
    for token in range(1, 43):
        await store.wait([a_retry(held, token=token, until=NOW)])
        await store.grant(a_lease(f"r{token}"), grants(await read(store, held)))
    numbers = [attempt.number for attempt in (await read(store, held)).attempts]
    assert numbers == list(range(3, 43))


# Who acts next


async def test_waits_that_end_are_handed_over_once(store: ExecutionStore) -> None:
    late, early, ahead = (
        an_execution(phase=Phase.WAITING, wake_time=at(n), available_time=at(n)) for n in (2, 1, 2.001)
    )
    delivered = an_execution(wake_time=at(1))
    await insert(store, late, early, ahead, delivered)
    assert ids(*await store.take_waiting(ALL, at(2), 1)) == ids(early)
    taken = await store.take_waiting(ALL, at(2), 10)
    assert ids(*taken) == ids(late)
    assert await store.take_waiting(ALL, at(2), 10) == []
    stored = await read(store, late)
    assert (stored.phase, stored.wake_time, stored.available_time) == (Phase.DISPATCHED, at(4), at(2))
    assert (await read(store, ahead)).phase is Phase.WAITING


async def test_waits_are_handed_over_by_partition(store: ExecutionStore) -> None:
    first, second = (an_execution(phase=Phase.WAITING, wake_time=NOW, partition=n) for n in (7, 200))
    await insert(store, first, second)
    assert await store.take_waiting([0, 8, 199], NOW, 10) == []
    assert ids(*await store.take_waiting([7, 8], NOW, 10)) == ids(first)
    assert ids(*await store.take_waiting(range(100, 256), NOW, 10)) == ids(second)


async def test_a_wait_that_ended_long_ago_counts_its_grace_from_now(store: ExecutionStore) -> None:
    clock = SystemClock()
    ended = an_execution(phase=Phase.WAITING, wake_time=clock.now() - timedelta(hours=1))
    await insert(store, ended)
    before = clock.now()
    await store.take_waiting(ALL, before, 10)
    wake = (await read(store, ended)).wake_time
    assert wake is not None
    assert before - SECOND < wake - 2 * SECOND < clock.now() + SECOND


async def test_overdue_is_what_nobody_began_or_held_on_to_oldest_first(store: ExecutionStore) -> None:
    leased = await begun(store)
    delivered = an_execution(wake_time=at(14), partition=9)
    waiting = an_execution(phase=Phase.WAITING, wake_time=at(13))
    fresh = an_execution(wake_time=at(15.001))
    ended = an_execution(state=ExecutionState.FAILED, phase=Phase.SETTLING, wake_time=at(1))
    await insert(store, delivered, waiting, fresh, ended)
    assert ids(*await store.find_overdue(at(15), 10)) == ids(waiting, delivered, leased)
    assert ids(*await store.find_overdue(at(15), 2)) == ids(waiting, delivered)
    assert await store.find_overdue(at(12.999), 10) == []


async def test_ready_is_what_may_begin_delivered_or_not_oldest_first(store: ExecutionStore) -> None:
    await begun(store)
    delivered = an_execution(fire_time=at(2), wake_time=at(4), available_time=at(2))
    waiting = an_execution(phase=Phase.WAITING, wake_time=at(1), available_time=at(1))
    late = an_execution(fire_time=at(-100), wake_time=at(-98), available_time=at(-100))
    ahead = an_execution(fire_time=at(2.001), wake_time=at(4), available_time=at(2.001))
    ended = an_execution(state=ExecutionState.FAILED, phase=Phase.SETTLING, wake_time=at(1))
    await insert(store, delivered, waiting, late, ahead, ended)
    assert ids(*await store.find_ready(at(2), 10)) == ids(late, waiting, delivered)
    assert ids(*await store.find_ready(at(2), 1)) == ids(late)


async def test_what_comes_due_is_also_found_without_that_of_some_orgs(store: ExecutionStore) -> None:
    first, second, third = (
        an_execution(org_id=org, phase=Phase.WAITING, wake_time=at(n), available_time=at(n))
        for n, org in enumerate(("org-a", "org-b", "org-c"))
    )
    await insert(store, first, second, third)
    assert ids(*await store.find_overdue(at(5), 10, without_orgs=["org-a"])) == ids(second, third)
    assert ids(*await store.find_ready(at(5), 1, without_orgs={"org-a", "org-b"})) == ids(third)
    assert ids(*await store.take_waiting(ALL, at(5), 10, without_orgs=["org-b"])) == ids(first, third)
    assert (await read(store, second)).phase is Phase.WAITING


async def test_what_is_postponed_is_looked_at_later(store: ExecutionStore) -> None:
    ready, changed, lost = an_execution(), an_execution(), await begun(store)
    await insert(store, ready, changed)
    await store.grant(a_lease(), grants(changed))
    await store.postpone([ready, changed, lost, an_execution()], at(60))
    assert [(await read(store, each)).wake_time for each in (ready, changed, lost)] == [at(60), at(15), at(60)]
    await store.postpone([await read(store, ready)], at(30))
    assert (await read(store, ready)).wake_time == at(60)


async def test_reads_of_the_dispatch_path_carry_no_answers(store: ExecutionStore) -> None:
    execution = an_execution(phase=Phase.WAITING, wake_time=NOW, response=ANSWER)
    await insert(store, execution)
    found = [
        *await store.find_overdue(NOW, 1),
        *await store.find_ready(NOW, 1),
        *await store.take_waiting(ALL, NOW, 1),
    ]
    assert [execution.response for execution in found] == [None, None, None]


async def test_a_failed_end_waits_to_be_settled(store: ExecutionStore) -> None:
    first, second = await begun(store), await begun(store)
    await store.finish([a_finish(first, settle=True), a_finish(second, settle=True, end_time=at(2))])
    assert await store.find_unsettled(at(5.999), 10) == []
    assert ids(*await store.find_unsettled(at(7), 10)) == ids(first, second)
    assert ids(*await store.find_unsettled(at(7), 1)) == ids(first)
    running = await begun(store)
    await store.settled([*ids(first, running), GONE])
    assert ids(*await store.find_unsettled(at(60), 10)) == ids(second)
    assert (await read(store, first)).phase is None
    assert (await read(store, running)).phase is Phase.LEASED


async def test_jobs_are_live_while_an_execution_is_not_final(store: ExecutionStore) -> None:
    jobs = ready, running, settling, ended, _ = [a_job() for _ in range(5)]
    await insert(store, an_execution(ready), an_execution(ready, at(1)))
    await begun(store, an_execution(running))
    failed = await begun(store, an_execution(settling))
    await store.finish([a_finish(failed, settle=True, state=ExecutionState.FAILED)])
    await store.finish([a_finish(await begun(store, an_execution(ended)))])
    assert await store.find_live_jobs({job.job_id for job in jobs}) == {ready.job_id, running.job_id}
    assert await store.find_live_jobs({ended.job_id}) == frozenset()


# The queue


async def test_one_execution_of_a_job_waits_for_another(store: ExecutionStore) -> None:
    job, other = a_job(), a_job()
    first, second = an_execution(job), an_execution(job, at(60))
    foreign = an_execution(other)
    await insert(store, first, second, foreign)
    results = await asyncio.gather(
        *(store.queue_behind(execution, execution.job_id, at(30)) for execution in (first, second, foreign))
    )
    assert sorted(results[:2]) == [False, True]
    assert results[2]
    queued, refused = (first, second) if results[0] else (second, first)
    assert await store.queue_behind(queued, job.job_id, at(40))
    stored = await read(store, queued)
    assert (stored.phase, stored.wake_time, stored.available_time) == (Phase.WAITING, at(40), at(40))
    assert (stored.wait_reason, stored.state) == ("OVERLAP", ExecutionState.READY)
    assert await read(store, refused) == refused
    assert not await store.queue_behind(an_execution(job, at(120)), job.job_id, at(30))


async def test_a_queued_execution_is_woken_and_its_place_is_free_once_it_began(store: ExecutionStore) -> None:
    job = a_job()
    queued, next_one = an_execution(job), an_execution(job, at(60))
    await insert(store, queued, next_one)
    await store.queue_behind(queued, job.job_id, at(30))
    assert not await store.wake_queued({a_job().job_id}, at(5))
    assert await store.wake_queued({job.job_id}, at(5))
    woken = await read(store, queued)
    assert (woken.wake_time, woken.available_time, woken.phase) == (at(5), at(5), Phase.WAITING)
    assert not await store.queue_behind(next_one, job.job_id, at(30))
    assert (await store.grant(a_lease(time=at(5)), grants(woken))).granted == {queued.execution_id}
    assert await store.queue_behind(next_one, job.job_id, at(30))
    assert not await store.queue_behind(woken, job.job_id, at(30))


# Jobs that stop firing


async def test_withdrawn_fires_are_skipped_and_what_is_under_way_stays(store: ExecutionStore) -> None:
    job = a_job()
    fired, ahead = an_execution(job, at(-1)), an_execution(job, at(0.001))
    manual = a_manual_execution(job, at(-1))
    other = an_execution(fire_time=at(-1))
    running = await begun(store, an_execution(job, at(-60)))
    retried = await begun(store, an_execution(job, at(-120)))
    await store.wait([a_retry(retried)])
    await insert(store, fired, ahead, manual, other)
    untouched = [ahead, manual, other, running, retried]
    before = await read_all(store, untouched)
    await store.withdraw(job.job_id, "JOB_PAUSED", NOW)
    assert await read_all(store, untouched) == before
    skipped = await read(store, fired)
    assert (skipped.state, skipped.state_reason) == (ExecutionState.SKIPPED, "JOB_PAUSED")
    assert (skipped.end_time, skipped.expire_time) == (NOW, NOW + RETENTION)
    assert (skipped.phase, skipped.wake_time, skipped.available_time) == (None, None, None)
    await store.withdraw(job.job_id, "AGAIN", at(0))
    assert await read(store, fired) == skipped


async def test_a_withdrawn_execution_frees_the_slot_that_it_kept_through_its_release(store: ExecutionStore) -> None:
    job = a_job()
    held = await begun(store, an_execution(job, exclusive=True))
    await store.wait([a_deferral(held, released=True)])
    await store.withdraw(job.job_id, "JOB_PAUSED", at(1))
    assert (await read(store, held)).state is ExecutionState.SKIPPED
    assert not await store.is_slot_taken(job.job_id)


async def test_a_cancelled_ready_execution_ends_under_the_token_as_read(store: ExecutionStore) -> None:
    ready, taken = an_execution(exclusive=True), an_execution()
    await insert(store, ready)
    await begun(store, taken)
    wanted = Cancellation("CANCELLED_BY_CALLER", "somebody", "note")
    assert not await store.cancel_ready(taken, wanted, at(1))
    assert await store.cancel_ready(ready, wanted, at(1))
    assert not await store.cancel_ready(ready, wanted, at(2))
    ended = await read(store, ready)
    assert (ended.state, ended.state_reason, ended.end_time) == (ExecutionState.CANCELLED, wanted.reason, at(1))
    assert (ended.cancel_actor, ended.cancel_note, ended.phase) == ("somebody", "note", Phase.SETTLING)
    assert ids(*await store.find_unsettled(at(6), 10)) == ids(ready)


async def test_a_running_execution_is_asked_to_stop_once(store: ExecutionStore) -> None:
    ready = an_execution()
    await insert(store, ready)
    running = await begun(store)
    assert not await store.request_cancel(ready, Cancellation("R", "a"))
    assert await store.request_cancel(running, Cancellation("R", "a"))
    assert not await store.request_cancel(running, Cancellation("S", "b"))
    asked = await read(store, running)
    assert (asked.state, asked.cancel_reason, asked.cancel_actor) == (ExecutionState.RUNNING, "R", "a")


async def test_a_deleted_job_leaves_nothing_that_would_run(store: ExecutionStore) -> None:
    job = a_job()
    fired, ahead, manual = an_execution(job), an_execution(job, at(60)), a_manual_execution(job)
    other = an_execution(exclusive=True)
    await insert(store, fired, ahead, manual, other)
    running = await begun(store, an_execution(job, at(-60), exclusive=True))
    retried = await begun(store, an_execution(job, at(-120)))
    await store.wait([a_retry(retried)])
    await store.cancel_job(job.job_id, Cancellation("JOB_DELETED", "somebody"), at(1))
    states = {
        execution.execution_id: execution.state
        for execution in await store.find_page(SCOPE, ExecutionFilter(job_id=job.job_id), after=None, limit=50)
    }
    assert states == {
        fired.execution_id: ExecutionState.SKIPPED,
        manual.execution_id: ExecutionState.SKIPPED,
        retried.execution_id: ExecutionState.CANCELLED,
        running.execution_id: ExecutionState.RUNNING,
    }
    assert (await read(store, running)).cancel_reason == "JOB_DELETED"
    assert await read(store, other) == other


# What a job's history tells


async def test_the_latest_success_and_states_tell_of_what_ran(store: ExecutionStore) -> None:
    job = a_job()
    states = [
        ExecutionState.SUCCEEDED,
        ExecutionState.FAILED,
        ExecutionState.SKIPPED,
        ExecutionState.TIMED_OUT,
        ExecutionState.CANCELLED,
        ExecutionState.READY,
    ]
    history = [an_execution(job, at(60 * n), state=state) for n, state in enumerate(states)]
    await insert(store, *history, an_execution(state=ExecutionState.SUCCEEDED))
    assert await store.last_success_times({job.job_id, "none"}) == {job.job_id: NOW}
    assert await store.latest_states(job.job_id, 2) == [ExecutionState.TIMED_OUT, ExecutionState.FAILED]
    assert await store.latest_states(job.job_id, 9) == [
        ExecutionState.TIMED_OUT,
        ExecutionState.FAILED,
        ExecutionState.SUCCEEDED,
    ]
