"""Large answers: taken in under a lease only, bounded, and removed when nothing refers to them any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from libs.common.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PunctualError,
    ResourceExhaustedError,
    UnavailableError,
)
from services.scheduler.domain.answer_blob import CHECK_INTERVAL, EXPIRY_GRACE, MAX_BLOB_BYTES, BlobRecord, next_check
from services.scheduler.domain.execution import Execution, ExecutionState, StoredResponse
from services.scheduler.testing.memory_blobs import MemoryBlobRecords, MemoryBlobs
from services.scheduler.usecases.answer_blobs import StoreAnswer, SweepBlobs
from services.scheduler.usecases.begin_attempts import GrantedAttempt
from tests.support.scheduler_values import NOW, RETENTION, SECOND, an_execution
from tests.support.scheduler_world import Death, World


class Storage:
    """A world with a blob store."""

    def __init__(self) -> None:
        self.world = World()
        checkpoint = self.world._checkpoint
        self.blobs = MemoryBlobs(checkpoint)
        self.records = MemoryBlobRecords(checkpoint)
        world = self.world
        self.store = StoreAnswer(world.executions, self.blobs, self.records, world.answers, world.clock)
        self.sweep = SweepBlobs(world.executions, self.blobs, self.records, world.clock)

    async def begun(self) -> GrantedAttempt:
        await self.world.job()
        await self.world.advance(60 * SECOND)
        return await self.world.begun((await self.world.delivered())[-1])

    async def upload(self, granted: GrantedAttempt, data: bytes = b"answer") -> str:
        return (await self.store(granted.execution.execution_id, granted.fencing_token, parts(data))).blob_id

    async def report(self, granted: GrantedAttempt, blob_id: str, status: int = 200) -> bool:
        report = self.world.report_of(granted, status)
        response = StoredResponse(status, blob_id=blob_id, stored_size_bytes=6)
        report = replace(report, response=response)
        return (report.execution_id, report.fencing_token) in await self.world.reports([report])


async def parts(*data: bytes) -> AsyncIterator[bytes]:
    for part in data:
        yield part


@pytest.fixture
def storage() -> Storage:
    return Storage()


async def test_an_answer_is_stored_under_its_lease(storage: Storage) -> None:
    granted = await storage.begun()
    stored = await storage.store(granted.execution.execution_id, granted.fencing_token, parts(b"an", b"", b"swer"))
    assert (storage.blobs.blobs, stored.size_bytes) == ({stored.blob_id: b"answer"}, 6)
    assert stored.blob_id.startswith(f"{granted.execution.execution_id}/{granted.fencing_token}/")


@pytest.mark.parametrize("token", [0, 2, -1])
async def test_another_token_is_refused_before_any_byte(storage: Storage, token: int) -> None:
    granted = await storage.begun()
    with pytest.raises(FailedPreconditionError, match="not held"):
        await storage.store(granted.execution.execution_id, token, parts(b"x"))
    assert (storage.blobs.blobs, storage.records.records) == ({}, {})


async def test_a_final_or_unknown_execution_takes_no_answer(storage: Storage) -> None:
    granted = await storage.begun()
    await storage.world.report(granted)
    for execution_id in (granted.execution.execution_id, "nobody-1"):
        with pytest.raises(FailedPreconditionError):
            await storage.store(execution_id, granted.fencing_token, parts(b"x"))


async def test_more_than_any_job_may_keep_is_refused(storage: Storage) -> None:
    granted = await storage.begun()
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1_000_000

    with pytest.raises(InvalidArgumentError, match="chunk"):
        await storage.store(granted.execution.execution_id, granted.fencing_token, endless())
    assert taken == MAX_BLOB_BYTES // 1_000_000 + 1


async def test_an_org_over_its_quota_stores_nothing(storage: Storage) -> None:
    granted = await storage.begun()
    storage.world.answers.full.add(granted.execution.org_id)
    with pytest.raises(ResourceExhaustedError):
        await storage.upload(granted)


async def test_a_repeated_upload_disturbs_nothing_and_its_double_goes(storage: Storage) -> None:
    granted = await storage.begun()
    first, second = await asyncio.gather(storage.upload(granted), storage.upload(granted))
    assert first != second
    assert await storage.report(granted, second)
    await storage.world.advance(CHECK_INTERVAL)
    await storage.sweep.run_once()
    assert list(storage.blobs.blobs) == list(storage.records.records) == [second]


async def test_a_blob_stays_as_long_as_its_execution_and_goes_with_it(storage: Storage) -> None:
    granted = await storage.begun()
    blob_id = await storage.upload(granted)
    assert await storage.report(granted, blob_id)
    await storage.world.advance(CHECK_INTERVAL)
    await storage.sweep.run_once()
    assert storage.records.records[blob_id].check_time >= storage.world.clock.now() + RETENTION - CHECK_INTERVAL
    await storage.world.advance(RETENTION + EXPIRY_GRACE)
    assert storage.blobs.blobs
    del storage.world.executions._records[granted.execution.execution_id]  # as the TTL index does
    await storage.sweep.run_once()
    assert (storage.blobs.blobs, storage.records.records) == ({}, {})


async def test_the_answer_of_an_earlier_attempt_goes_when_a_later_one_has_its_own(storage: Storage) -> None:
    granted = await storage.begun()
    first = await storage.upload(granted)
    assert await storage.report(granted, first, 503)
    await storage.world.advance(60 * SECOND)
    again = await storage.world.begun(granted.execution.execution_id)
    second = await storage.upload(again)
    assert await storage.report(again, second)
    await storage.world.advance(CHECK_INTERVAL)
    await storage.sweep.run_once()
    assert list(storage.blobs.blobs) == [second]


async def test_an_upload_whose_report_was_refused_goes(storage: Storage) -> None:
    granted = await storage.begun()
    blob_id = await storage.upload(granted)
    await storage.world.advance(16 * SECOND)
    assert (await storage.world.poll()).granted
    assert not await storage.report(granted, blob_id)
    await storage.world.advance(CHECK_INTERVAL)
    await storage.sweep.run_once()
    assert storage.blobs.blobs == {}


@pytest.mark.parametrize(
    "point", ["blob_records.insert.after", "blobs.write.before", "blobs.write.after"], ids=["record", "bytes", "answer"]
)
async def test_what_a_dead_process_left_goes(storage: Storage, point: str) -> None:
    granted = await storage.begun()
    storage.world.die_at(point)
    with pytest.raises(Death):
        await storage.upload(granted)
    blob_id = await storage.upload(granted)
    assert await storage.report(granted, blob_id)
    await storage.world.advance(CHECK_INTERVAL)
    await storage.sweep.run_once()
    assert list(storage.blobs.blobs) == list(storage.records.records) == [blob_id]


@pytest.mark.parametrize("point", ["blobs.delete.after", "blob_records.remove.before", "blob_records.postpone.before"])
async def test_a_sweep_that_dies_is_finished_by_the_next(storage: Storage, point: str) -> None:
    granted = await storage.begun()
    kept, _ = await storage.upload(granted), await storage.upload(granted)
    assert await storage.report(granted, kept)
    await storage.world.advance(CHECK_INTERVAL)
    storage.world.die_at(point)
    with pytest.raises(Death):
        await storage.sweep.run_once()
    await storage.sweep.run_once()
    assert list(storage.blobs.blobs) == list(storage.records.records) == [kept]
    assert await storage.sweep.run_once() == 0


async def test_what_cannot_be_deleted_stands_in_nobodys_way(storage: Storage) -> None:
    granted = await storage.begun()
    for _ in range(3):
        await storage.upload(granted)
    await storage.world.report(granted)
    await storage.world.advance(CHECK_INTERVAL)
    stuck = next(iter(storage.blobs.blobs))
    delete = storage.blobs.delete

    async def refuse(blob_id: str) -> None:
        if blob_id == stuck:
            raise UnavailableError("BLOB_STORE_UNAVAILABLE", "not this one")
        await delete(blob_id)

    storage.blobs.delete = refuse  # type: ignore[method-assign]
    assert await storage.sweep.run_once() == 3
    assert list(storage.blobs.blobs) == list(storage.records.records) == [stuck]
    assert await storage.sweep.run_once() == 0
    storage.blobs.delete = delete  # type: ignore[method-assign]
    await storage.world.advance(CHECK_INTERVAL)
    assert await storage.sweep.run_once() == 1
    assert storage.blobs.blobs == {}


def a_record(token: int = 3) -> BlobRecord:
    return BlobRecord("blob", "execution", token, NOW)


def referring(**changes: object) -> Execution:
    execution = replace(an_execution(), fencing_token=3, response=StoredResponse(200, blob_id="blob"))
    return replace(execution, **changes)  # type: ignore[arg-type]


LATER = NOW + timedelta(days=30)


@pytest.mark.parametrize(
    ("execution", "check"),
    [
        (None, None),
        (referring(state=ExecutionState.SUCCEEDED, expire_time=LATER), LATER + EXPIRY_GRACE),
        (referring(state=ExecutionState.SUCCEEDED, expire_time=NOW - SECOND), NOW + EXPIRY_GRACE),
        (referring(state=ExecutionState.READY), NOW + CHECK_INTERVAL),
        (referring(state=ExecutionState.RUNNING, response=None), NOW + CHECK_INTERVAL),
        (referring(state=ExecutionState.RUNNING, response=None, fencing_token=4), None),
        (referring(state=ExecutionState.READY, response=None), None),
        (referring(state=ExecutionState.FAILED, response=StoredResponse(500, blob_id="other")), None),
    ],
)
def test_the_rule(execution: Execution | None, check: object) -> None:
    assert next_check(a_record(), execution, NOW) == check


async def test_a_blob_that_is_gone_is_not_found(storage: Storage) -> None:
    with pytest.raises(NotFoundError) as raised:
        await anext(storage.blobs.open_stream("gone"))
    assert isinstance(raised.value, PunctualError)
