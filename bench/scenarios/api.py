"""The API beside 100,000 stored jobs: what a hundred callers at a time wait, and whether a list's pages stay as quick.

The jobs are copies of real ones, stored past the API under ids and names of their own. The limits of calls are on, and
so high that none is refused: their cost belongs to each call.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from punctual.v1 import job_pb2, job_service_pb2

from bench.callers import measure_calls
from bench.jobs import create, one_time_job
from bench.measure import Result, percentile, summary
from bench.runs import Run
from bench.system import ORG, System, running_system
from libs.common.ids import new_id

CALLERS = 100
BATCH = 1_000
PAGE_SIZE = 100
EDGE = 50
"""Pages at either end of the list that are compared."""
LIMITS = {
    "PUNCTUAL_CALLS_PER_MINUTE": "10000000",
    "PUNCTUAL_CREATES_PER_MINUTE": "10000000",
    "PUNCTUAL_BATCH_CREATES_PER_MINUTE": "10000000",
}


async def run(run: Run) -> list[Result]:
    """Load the jobs, then measure single creations, reads, and a walk through the whole list."""
    stored = run.size(100_000, 5_000)
    async with running_system(run.new_folder(), settings=LIMITS) as system:
        ids = await _load(system, stored)
        results = [
            await measure_calls(system, "api-create", run.size(2_000, 500), _creating(system), callers=CALLERS),
            await measure_calls(system, "api-get", run.size(6_000, 2_000), _getting(system, ids), callers=CALLERS),
            await _pages(system),
        ]
    for result in results:
        result.extra["stored_jobs"] = stored
    return results


async def _load(system: System, count: int) -> list[str]:
    """Create the first jobs and store copies of them; returns the ids of all."""
    created = await create(system, [_job(system, number) for number in range(BATCH)], batch=BATCH)
    ids = [job.job_id for job in created]
    jobs = system.database.jobs
    # What makes a later equal submission a duplicate is each job's own.
    patterns = [doc async for doc in jobs.find({}, {"fingerprint_slot": 0, "duplicate_until": 0, "audit_outbox": 0})]
    for start in range(BATCH, count, BATCH):
        copies = [{**pattern, "_id": new_id(), "name": f"api-{start + n}"} for n, pattern in enumerate(patterns)]
        await jobs.insert_many(copies, ordered=False)
        ids += [copy["_id"] for copy in copies]
    return ids


def _job(system: System, number: int) -> job_pb2.Job:
    at = datetime.now(UTC) + timedelta(days=30, seconds=number % 86_400)
    job = one_time_job(f"api-{number}", system.sink.url, at)
    job.labels["team"] = f"team-{number % 20}"
    return job


def _creating(system: System) -> Callable[[int], Awaitable[object]]:
    async def call(number: int) -> None:
        # With the fingerprint that guards against accidents, as callers send it by default.
        job = _job(system, 10_000_000 + number)
        request = job_service_pb2.CreateJobRequest(job=job, idempotency_key=f"api-{number}")
        await system.jobs.CreateJob(request, metadata=ORG, timeout=60)

    return call


def _getting(system: System, ids: list[str]) -> Callable[[int], Awaitable[object]]:
    chance = random.Random(1)

    async def call(_number: int) -> None:
        await system.jobs.GetJob(job_service_pb2.GetJobRequest(job_id=chance.choice(ids)), metadata=ORG, timeout=60)

    return call


async def _pages(system: System) -> Result:
    """Walk through all jobs page by page, alone, and compare the first pages with the last."""
    took: list[float] = []
    token, began = "", time.perf_counter()
    while token or not took:
        request = job_service_pb2.ListJobsRequest(page_size=PAGE_SIZE, page_token=token)
        asked = time.perf_counter()
        answer = await system.jobs.ListJobs(request, metadata=ORG, timeout=60)
        took.append(1000 * (time.perf_counter() - asked))
        token = answer.next_page_token
    # The very last page may hold next to nothing.
    first, last = sorted(took[:EDGE]), sorted(took[:-1][-EDGE:])
    extra = {
        "page_size": PAGE_SIZE,
        "page_millis": summary(took),
        "first_pages_median_millis": round(percentile(first, 50), 3),
        "last_pages_median_millis": round(percentile(last, 50), 3),
    }
    return Result("api-pages", "punctual", len(took), time.perf_counter() - began, extra=extra)
