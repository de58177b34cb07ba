"""Callbacks in an execution store: kept as they are, listed by the job that they tell of, and apart from its own."""

from __future__ import annotations

import pytest

from libs.common.clock import SystemClock
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.execution_store import MongoExecutionStore
from services.scheduler.domain.callback import callback_job, execution_ended
from services.scheduler.domain.execution import Cause, Execution, ExecutionState, StoredResponse
from services.scheduler.domain.job import CallbackPolicy, Job
from services.scheduler.testing.memory_execution_store import MemoryExecutionStore
from services.scheduler.usecases.ports.execution_store import ExecutionFilter, ExecutionStore
from tests.support.scheduler_values import (
    NOW,
    RETENTION,
    SCOPE,
    SECOND,
    a_definition,
    a_finish,
    a_job,
    a_lease,
    an_execution,
    at,
    grants,
)


@pytest.fixture
def store(in_mongo: bool) -> ExecutionStore:
    return MongoExecutionStore(RETENTION, AuditOutbox()) if in_mongo else MemoryExecutionStore(RETENTION, SystemClock())


async def told(store: ExecutionStore, job: Job, seconds: float) -> tuple[Execution, Execution]:
    """Store an execution and the callback that tells of it."""
    execution = an_execution(job, at(seconds))
    callback = execution_ended(execution, job, at(seconds))
    await store.insert_new([execution, callback])
    await store.insert_new([callback])
    return execution, callback


async def test_a_callback_is_read_as_it_was_written_and_waits_like_a_retry(store: ExecutionStore) -> None:
    job = a_job(a_definition(callback=CallbackPolicy("https://hooks.example.com/é")))
    execution, callback = await told(store, job, 0)
    assert await store.get(SCOPE, callback.execution_id) == callback
    assert callback_job(callback).job_id == callback.execution_id
    found = await store.take_waiting(range(256), NOW, 10)
    assert [item.execution_id for item in found] == [callback.execution_id]
    assert await store.find_live_jobs([job.job_id]) == {execution.job_id}


async def test_callbacks_are_listed_apart(store: ExecutionStore) -> None:
    job, other = (a_job(a_definition(callback=CallbackPolicy("https://hooks.example.com"))) for _ in range(2))
    first, first_callback = await told(store, job, 0)
    second, second_callback = await told(store, job, 1)
    await told(store, other, 2)

    async def listed(*causes: Cause) -> list[str]:
        where = ExecutionFilter(job_id=job.job_id, causes=frozenset(causes))
        return [item.execution_id for item in await store.find_page(SCOPE, where, after=None, limit=10)]

    assert await listed() == [second.execution_id, first.execution_id]
    assert await listed(Cause.CALLBACK) == [second_callback.execution_id, first_callback.execution_id]
    assert await listed(Cause.CALLBACK, Cause.SCHEDULE) == [second.execution_id, first.execution_id]
    everything = await store.find_page(SCOPE, ExecutionFilter(), after=None, limit=10)
    assert len(everything) == 6


async def test_answers_are_described_without_their_bytes(store: ExecutionStore) -> None:
    execution = an_execution()
    await store.insert_new([execution])
    await store.grant(a_lease(), grants(execution))
    answer = StoredResponse(200, blob_id="blob", head=b"begin", body=b"", stored_size_bytes=9)
    await store.finish([a_finish(execution, state=ExecutionState.SUCCEEDED, response=answer)])
    loaded = await store.load_with_answers([execution.execution_id, "gone-1"])
    [found] = loaded.values()
    assert found.response == StoredResponse(200, blob_id="blob", stored_size_bytes=9)
    assert found.expire_time is not None
    assert found.expire_time > NOW + RETENTION - SECOND
