"""What a replica remembers of records is as good as reading them: whoever wrote them meanwhile, and whatever it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from libs.common.clock import SystemClock
from services.scheduler.adapters.key_ring import KeyRing
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.documents import JobDocument
from services.scheduler.adapters.mongo.execution_store import MongoExecutionStore
from services.scheduler.adapters.mongo.header_secrets import HeaderSecrets
from services.scheduler.adapters.mongo.job_store import MongoJobStore
from services.scheduler.adapters.mongo.key_rotation import KeyRotation
from services.scheduler.adapters.mongo.signing_secret_store import MongoSigningSecretStore
from services.scheduler.domain.execution import Execution, Phase
from services.scheduler.domain.job import Header, Job, JobState, Target
from services.scheduler.usecases.ports.execution_store import Cancellation
from services.scheduler.usecases.ports.job_store import CursorMove
from tests.support.scheduler_values import (
    LATER,
    MINUTE,
    NOW,
    RETENTION,
    SCOPE,
    a_deferral,
    a_definition,
    a_finish,
    a_job,
    a_lease,
    a_retry,
    an_attempt,
    an_execution,
    at,
    grants,
)

pytestmark = pytest.mark.parametrize("mongo_place", ["mongo"], indirect=True)

CANCELLATION = Cancellation("CANCELLED", "tester", "")
OLD, NEW = b"o" * 32, b"n" * 32

ChangeExecution = Callable[[MongoExecutionStore, Execution], Awaitable[object]]
ChangeJob = Callable[[MongoJobStore, Job], Awaitable[object]]


def executions() -> MongoExecutionStore:
    return MongoExecutionStore(RETENTION, AuditOutbox())


def jobs(*keys: tuple[str, bytes]) -> MongoJobStore:
    return MongoJobStore(HeaderSecrets(KeyRing(dict(keys or [("old", OLD)]))), AuditOutbox())


async def assert_reads_what_is_stored(store: MongoExecutionStore, execution: Execution) -> None:
    stored = await store.get(SCOPE, execution.execution_id)
    for reader in (store, executions()):
        assert (await reader.load([execution.execution_id]))[execution.execution_id] == replace(stored, response=None)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda other, one: other.cancel_ready(one, CANCELLATION, LATER), id="cancelled"),
        pytest.param(lambda other, one: other.grant(a_lease("elsewhere"), grants(one)), id="granted"),
        pytest.param(lambda other, one: other.postpone([one], LATER), id="postponed"),
        pytest.param(lambda other, one: other.queue_behind(one, one.job_id, LATER), id="queued"),
        pytest.param(lambda other, one: other.withdraw(one.job_id, "JOB_PAUSED", LATER), id="withdrawn"),
        pytest.param(lambda other, one: other.cancel_job(one.job_id, CANCELLATION, LATER), id="of a deleted job"),
    ],
)
async def test_an_execution_that_waits_is_read_as_another_replica_left_it(
    in_mongo: bool, change: ChangeExecution
) -> None:
    store, execution = executions(), an_execution(exclusive=True)
    await store.insert_new([execution])
    await assert_reads_what_is_stored(store, execution)
    await change(executions(), execution)
    await assert_reads_what_is_stored(store, execution)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda other, one: other.extend("executor-1", {one.execution_id: 1}, at(60)), id="renewed"),
        pytest.param(lambda other, one: other.request_cancel(one, CANCELLATION), id="to be cancelled"),
        pytest.param(lambda other, one: other.finish([a_finish(one)]), id="ended"),
        pytest.param(lambda other, one: other.wait([a_retry(one)]), id="to be tried again"),
        pytest.param(lambda other, one: other.wait([a_deferral(one)]), id="deferred"),
        pytest.param(
            lambda other, one: other.grant(
                a_lease("elsewhere", time=NOW + MINUTE), grants(replace_running(one), lost=an_attempt())
            ),
            id="lost",
        ),
    ],
)
@pytest.mark.parametrize("exclusive", [False, True])
async def test_a_granted_execution_is_read_as_another_replica_left_it(
    in_mongo: bool, change: ChangeExecution, exclusive: bool
) -> None:
    store, execution = executions(), an_execution(exclusive=exclusive)
    await store.insert_new([execution])
    assert (await store.grant(a_lease(), grants(execution))).granted
    await assert_reads_what_is_stored(store, execution)
    await change(executions(), execution)
    await assert_reads_what_is_stored(store, execution)


def replace_running(execution: Execution) -> Execution:
    """Return the execution as a poll finds it whose lease ran out."""
    return replace(execution, phase=Phase.LEASED, fencing_token=1, attempt_number=1)


async def test_what_an_earlier_copy_of_a_request_was_granted_is_not_remembered_as_this_ones(in_mongo: bool) -> None:
    store, execution = executions(), an_execution()
    await store.insert_new([execution])
    await executions().grant(a_lease(), grants(execution))
    assert (await store.grant(a_lease(time=at(2)), grants(execution))).granted
    stored = await store.get(SCOPE, execution.execution_id)
    assert stored.begin_time == NOW
    assert store.recall([execution.execution_id])[execution.execution_id] in (execution, stored)


async def test_a_fire_that_was_there_already_is_read_as_it_was(in_mongo: bool) -> None:
    store, execution = executions(), an_execution()
    await store.insert_new([execution])
    again = executions()
    await again.insert_new([replace(execution, schedule_revision=2)])
    await assert_reads_what_is_stored(again, execution)


async def test_a_deleted_execution_is_not_there(in_mongo: bool) -> None:
    store, execution = executions(), an_execution(fire_time=LATER)
    await store.insert_new([execution])
    await executions().cancel_job(execution.job_id, CANCELLATION, NOW)
    assert await store.load([execution.execution_id]) == {}


async def _edit(other: MongoJobStore, job: Job) -> None:
    changed = replace(job, definition=a_definition(name="another one"), revision=2)
    assert await other.replace(SCOPE, changed, expected=job)


async def _move(other: MongoJobStore, job: Job) -> None:
    assert job.next_fire_time is not None
    await other.advance([CursorMove(job.job_id, 1, job.next_fire_time, at(120), at(121))])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_edit, id="edited"),
        pytest.param(_move, id="moved"),
        pytest.param(lambda other, job: other.count_failures({job.job_id: ["e1", "e2"]}), id="failed twice"),
        pytest.param(lambda other, job: other.stop(job.job_id, JobState.PAUSED, "WHY", "note", LATER), id="stopped"),
    ],
)
@pytest.mark.parametrize("created_here", [False, True])
async def test_a_job_is_read_as_another_replica_left_it(in_mongo: bool, change: ChangeJob, created_here: bool) -> None:
    store, job = jobs(), a_job()
    await (store if created_here else jobs()).insert_new([job])
    assert (await store.load([job.job_id]))[job.job_id] == job
    await change(jobs(), job)
    expected = await jobs().get(SCOPE, job.job_id)
    assert expected != job
    for _ in range(2):
        assert (await store.load([job.job_id]))[job.job_id] == expected


async def test_a_change_that_was_rolled_back_is_not_taken_for_the_one_of_the_same_revision(in_mongo: bool) -> None:
    # A primary that loses its majority shows what it will lose: the next primary gives the revision once more.
    store, job, collection = jobs(), a_job(), JobDocument.get_pymongo_collection()
    await jobs().insert_new([job])
    kept = await collection.find_one({"_id": job.job_id})
    assert kept is not None
    lost = replace(job, definition=a_definition(name="lost"), revision=2, update_time=at(1))
    assert await jobs().replace(SCOPE, lost, expected=job)
    assert (await store.load([job.job_id]))[job.job_id] == lost
    await collection.replace_one({"_id": job.job_id}, kept)
    later = replace(job, definition=a_definition(name="kept"), revision=2, update_time=at(20))
    assert await jobs().replace(SCOPE, later, expected=job)
    assert (await store.load([job.job_id]))[job.job_id] == later


async def test_a_stop_that_was_rolled_back_is_not_taken_for_a_later_one(in_mongo: bool) -> None:
    store, job, collection = jobs(), a_job(), JobDocument.get_pymongo_collection()
    await jobs().insert_new([job])
    kept = await collection.find_one({"_id": job.job_id})
    assert kept is not None
    assert await jobs().stop(job.job_id, JobState.PAUSED, "LOST", "note", at(1))
    assert (await store.load([job.job_id]))[job.job_id].state_reason == "LOST"
    await collection.replace_one({"_id": job.job_id}, kept)
    assert await jobs().stop(job.job_id, JobState.PAUSED, "KEPT", "note", at(20))
    assert (await store.load([job.job_id]))[job.job_id].state_reason == "KEPT"


async def test_a_job_with_secrets_is_read_without_them(in_mongo: bool) -> None:
    target = Target("https://api.example.com/v1", "Say hello.", (Header("Authorization", "s3cret", sensitive=True),))
    store, job = jobs(), a_job(a_definition(target=target))
    await store.insert_new([job])
    for _ in range(2):
        assert (await store.load([job.job_id]))[job.job_id].definition.target.headers[0].value == ""


async def test_a_refused_job_is_not_remembered(in_mongo: bool) -> None:
    store, first, second = jobs(), a_job(idempotency_key="k"), a_job(idempotency_key="k")
    await store.insert_new([first])
    assert await store.insert_new([second, a_job()]) == {second.job_id}
    assert await store.load([second.job_id]) == {}


async def test_a_completed_job_is_read_as_one(in_mongo: bool) -> None:
    store, job = jobs(), a_job(next_fire_time=None, next_due_time=None)
    await store.insert_new([job])
    assert (await store.load([job.job_id]))[job.job_id].state is JobState.ACTIVE
    await jobs().complete([job.job_id], LATER)
    completed = (await store.load([job.job_id]))[job.job_id]
    assert (completed.state, completed.state_changes[-1].state) == (JobState.COMPLETED, JobState.COMPLETED)


async def test_a_secret_under_a_new_key_is_read_as_it_is_sealed_now(in_mongo: bool) -> None:
    target = Target("https://api.example.com/v1", "Say hello.", (Header("Authorization", "s3cret", sensitive=True),))
    store, job = jobs(("old", OLD)), a_job(a_definition(target=target))
    await store.insert_new([job])
    sealed = (await store.load([job.job_id]))[job.job_id].definition.target.headers[0].sealed
    ring = KeyRing({"new": NEW, "old": OLD})
    signing_secrets = MongoSigningSecretStore(ring, AuditOutbox(), SystemClock())
    assert await KeyRotation(ring, HeaderSecrets(ring), signing_secrets).run_once() == 1
    assert (await store.load([job.job_id]))[job.job_id].definition.target.headers[0].sealed != sealed


async def test_a_job_that_is_gone_is_not_remembered(in_mongo: bool) -> None:
    store, job = jobs(), a_job()
    await store.insert_new([job])
    assert await store.load([job.job_id])
    await JobDocument.get_pymongo_collection().delete_one({"_id": job.job_id})
    assert await store.load([job.job_id]) == {}


@pytest.mark.parametrize("field", ["revision", "update_time", "state", "next_fire_time", "consecutive_failures"])
async def test_a_job_that_cannot_be_read_any_more_holds_up_no_other(in_mongo: bool, field: str) -> None:
    store, broken, sound = jobs(), a_job(), a_job()
    await store.insert_new([broken, sound])
    await store.load([broken.job_id, sound.job_id])
    await JobDocument.get_pymongo_collection().update_one({"_id": broken.job_id}, {"$unset": {field: ""}})
    for _ in range(2):
        assert await store.load([broken.job_id, sound.job_id]) == {sound.job_id: sound}


async def test_known_and_unknown_records_come_together(in_mongo: bool) -> None:
    store, known, unknown = jobs(), a_job(), a_job()
    await store.insert_new([known, unknown])
    await store.load([known.job_id])
    assert await store.load([known.job_id, unknown.job_id, "01NONE"]) == {
        known.job_id: known,
        unknown.job_id: unknown,
    }
