"""Creates the jobs of a test through the public API, and says which fires they must have."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from punctual.v1 import job_pb2, job_service_pb2, schedule_pb2
from pymongo.asynchronous.database import AsyncDatabase

from tests.support.checker import Expected, millis
from tests.support.cluster import Api, Cluster, of_org, open_api
from tools.devstack.waiting import wait_until

BATCH = 100
CONCURRENT_CREATES = 2
CALL_SECONDS = 10.0
CREATE_SECONDS = 50.0
"""How long one create is repeated; a one-time job that is due longer ago than a minute is refused."""
PASSING_ERRORS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
"""All that callers may see while something is away. gRPC itself answers CANCELLED to what a server that stops has not
begun; our client takes all three for UNAVAILABLE."""


def one_time_job(name: str, url: str, at: datetime, **fields: Any) -> job_pb2.Job:
    """Return a job that fires once."""
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return job_pb2.Job(
        name=name,
        schedule=schedule_pb2.Schedule(one_time=schedule_pb2.OneTimeRule(instant=stamp)),
        target=job_pb2.Target(url=url, prompt=f"prompt of {name}"),
        **fields,
    )


async def create_jobs(api: Api, jobs: Iterable[job_pb2.Job], *, org: str = "acme") -> list[job_pb2.Job]:
    """Create jobs by batches; returns them as stored. What is not acknowledged is repeated under its key."""
    requests = [
        job_service_pb2.CreateJobRequest(job=job, allow_duplicate=True, idempotency_key=uuid.uuid4().hex)
        for job in jobs
    ]
    gate = asyncio.Semaphore(CONCURRENT_CREATES)

    async def create(batch: list[job_service_pb2.CreateJobRequest]) -> list[job_pb2.Job]:
        request = job_service_pb2.BatchCreateJobsRequest(requests=batch)
        async with gate, asyncio.timeout(CREATE_SECONDS):
            while True:
                try:
                    answer = await api.jobs.BatchCreateJobs(request, metadata=of_org(org), timeout=CALL_SECONDS)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in PASSING_ERRORS:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    refused = [result.error for result in answer.results if result.HasField("error")]
                    assert not refused, refused[0]
                    return [result.job for result in answer.results]

    batches = [requests[start : start + BATCH] for start in range(0, len(requests), BATCH)]
    created = await asyncio.gather(*(create(batch) for batch in batches))
    return [job for batch in created for job in batch]


async def create_burst(
    api: Api, url: str, count: int, at: datetime, *, org: str = "acme", **fields: Any
) -> list[Expected]:
    """Create one-time jobs that are all due at one instant; returns the fires they must have."""
    named = (one_time_job(f"burst-{index}", url, at, **fields) for index in range(count))
    jobs = await create_jobs(api, named, org=org)
    # Not by `next_fire_time`: a create that was repeated, since its first answer was lost, may tell of a fired job.
    return [Expected(job.job_id, millis(at)) for job in jobs]


async def create_spread(
    api: Api, url: str, *, per_second: int, seconds: float, first: datetime, **fields: Any
) -> list[Expected]:
    """Create one-time jobs that come due one after the other; returns the fires they must have."""
    times = [first + timedelta(milliseconds=1000 * index // per_second) for index in range(round(per_second * seconds))]
    named = (one_time_job(f"spread-{index}", url, at, **fields) for index, at in enumerate(times))
    jobs = await create_jobs(api, named)
    return [Expected(job.job_id, millis(at)) for job, at in zip(jobs, times, strict=True)]


@asynccontextmanager
async def under_load(cluster: Cluster, path: str = "ok", *, per_second: int) -> AsyncIterator[list[Expected]]:
    """Have jobs come due at an even pace for as long as the body runs, so that whatever it breaks has something to hit.

    Yields the fires that they must have; the list is complete when the body is left.
    """
    expected: list[Expected] = []
    over = asyncio.Event()

    async def create(api: Api) -> None:
        while not over.is_set():
            began = time.monotonic()
            url = cluster.target(path)
            expected.extend(await create_spread(api, url, per_second=per_second, seconds=1, first=soon(2)))
            await asyncio.sleep(max(0.0, 1 - (time.monotonic() - began)))

    async with open_api(cluster) as api, asyncio.TaskGroup() as group:
        group.create_task(create(api))
        try:
            yield expected
        finally:
            over.set()


async def wait_final(database: AsyncDatabase[dict[str, Any]], count: int, *, seconds: float = 60) -> None:
    """Wait until that many executions are final and none is not; a failure tells what some of the others wait for."""
    live = {"state": {"$in": ["READY", "RUNNING"]}}

    async def all_final() -> bool:
        total = await database.executions.count_documents({})
        return total >= count and await database.executions.count_documents(live) == 0

    try:
        await wait_until(all_final, seconds=seconds, what=f"{count} final executions")
    except TimeoutError as error:
        shown = ("state", "phase", "wait_reason", "wait_host", "wake_time", "attempt_number", "deferral_count")
        left = [document async for document in database.executions.find(live, shown).limit(5)]
        total = await database.executions.count_documents({})
        error.add_note(f"at {datetime.now(UTC):%H:%M:%S} there are {total}, and not final are such as {left}")
        raise


def soon(seconds: float) -> datetime:
    """Return an instant that many seconds from now, on a whole millisecond."""
    now = datetime.now(UTC) + timedelta(seconds=seconds)
    return now - timedelta(microseconds=now.microsecond % 1000)
