"""What an execution costs the database, as counts: they are the same on any machine, and grow before the times do.

Requests, changed documents, looked-at index entries and bytes, for each execution of a batch from the tick to the
report, as mongod itself counts them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.v1 import job_service_pb2
from pymongo import AsyncMongoClient

from tests.support.served_scheduler import ORG, ServedScheduler, a_job, a_timestamp, once_at

BATCH = 200
SLACK = 40
"""Requests that are not ours: the drivers' own, and those of this test."""


@dataclass(frozen=True)
class Work:
    """What mongod has done up to an instant."""

    requests: int
    inserted: int
    updated: int
    index_entries: int
    """Looked at by queries."""
    collection_scans: int
    sorts: int
    """In memory."""
    bytes_in: int

    def since(self, before: Work) -> Work:
        """Return what was done in between."""
        return Work(**{name: getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__})


class Counts:
    """Reads mongod's counters."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]]) -> None:
        self._client = client

    async def read(self) -> Work:
        """Return the work up to now."""
        status = await self._client.admin.command("serverStatus")
        metrics, network = status["metrics"], status["network"]
        return Work(
            requests=network["numRequests"],
            inserted=metrics["document"]["inserted"],
            updated=metrics["document"]["updated"],
            index_entries=metrics["queryExecutor"]["scanned"],
            collection_scans=metrics["queryExecutor"]["collectionScans"]["total"],
            sorts=metrics["operation"]["scanAndOrder"],
            bytes_in=network["bytesIn"],
        )


@pytest.fixture
async def counts(mongo_uri: str) -> AsyncIterator[Counts]:
    async with AsyncMongoClient[dict[str, Any]](mongo_uri) as client:
        yield Counts(client)


async def _create(api: ServedScheduler, jobs: list[Any]) -> None:
    answer = await api.jobs.BatchCreateJobs(
        job_service_pb2.BatchCreateJobsRequest(
            requests=[job_service_pb2.CreateJobRequest(job=job, allow_duplicate=True) for job in jobs]
        ),
        metadata=ORG,
    )
    assert all(result.WhichOneof("result") == "job" for result in answer.results)


async def _fire(api: ServedScheduler) -> None:
    """Take a batch from the tick to its report."""
    ids = await api.tick(timedelta(seconds=5))
    assert len(ids) == BATCH
    batch = await api.begin(*ids)
    assert len(batch.grants) == BATCH
    now = a_timestamp(datetime.now(UTC))
    answer = pb.ReportedResponse(body=b"{}", stored_size_bytes=2, total_size_bytes=2)
    reports = [
        pb.AttemptReport(
            lease=pb.AttemptLease(execution_id=grant.execution_id, fencing_token=grant.fencing_token),
            result=pb.AttemptReport.RESULT_ANSWERED,
            start_time=now,
            end_time=now,
            status_code=200,
            response=answer,
        )
        for grant in batch.grants
    ]
    taken = await api.attempts.ReportAttempts(pb.ReportAttemptsRequest(executor_id="executor-1", reports=reports))
    assert all(result.verdict == pb.ReportResult.VERDICT_ACCEPTED for result in taken.results)


async def test_creating_a_batch_is_one_write(api: ServedScheduler, counts: Counts) -> None:
    at = datetime.now(UTC) + timedelta(days=1)
    before = await counts.read()
    await _create(api, [a_job(schedule=once_at(at)) for _ in range(BATCH)])
    work = (await counts.read()).since(before)
    print(work)
    assert work.requests <= SLACK, work
    assert work.inserted <= BATCH, work
    assert work.bytes_in <= 3_500 * BATCH, work
    assert work.collection_scans == 0, work


async def test_one_time_executions_cost_few_writes(api: ServedScheduler, counts: Counts) -> None:
    at = datetime.now(UTC) + timedelta(seconds=4)
    await _create(api, [a_job(schedule=once_at(at)) for _ in range(BATCH)])
    before = await counts.read()
    await _fire(api)
    work = (await counts.read()).since(before)
    print(work)
    assert work.requests <= SLACK, work
    assert work.inserted <= BATCH + 2, work
    # The cursor, the grant, the end, and the job's completion.
    assert work.updated <= 4 * BATCH + 10, work
    assert work.index_entries <= 8 * BATCH, work
    assert work.bytes_in <= 1_600 * BATCH, work
    assert (work.collection_scans, work.sorts) == (0, 0), work


async def test_a_tick_with_nothing_due_is_a_look_or_two(api: ServedScheduler, counts: Counts) -> None:
    at = datetime.now(UTC) + timedelta(days=1)
    await _create(api, [a_job(schedule=once_at(at)) for _ in range(BATCH)])
    await api.tick()
    before = await counts.read()
    for _ in range(10):
        assert await api.tick() == []
    work = (await counts.read()).since(before)
    assert work.requests <= 10 * 2 + SLACK, work
    assert work.index_entries <= 10 * 2, work
    assert (work.inserted, work.collection_scans, work.sorts) == (0, 0, 0), work
