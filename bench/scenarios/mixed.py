"""API traffic beside steady load: whether callers delay fires, and how long they wait themselves."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from punctual.v1 import execution_service_pb2, job_service_pb2

from bench.jobs import one_time_job
from bench.measure import Result, summary
from bench.runs import Run
from bench.scenarios import steady
from bench.system import ORG, System

CALLS_PER_SECOND = 100
PER_SECOND = 100


async def run(run: Run) -> list[Result]:
    """Measure steady load while callers create, read and list."""
    async with run.system() as system:
        traffic = asyncio.create_task(_call_for_ever(system))
        try:
            result = await steady.measure(system, per_second=PER_SECOND, seconds=run.size(30, 5), name="mixed")
        finally:
            traffic.cancel()
        took = await traffic
        result.extra["calls"] = {name: len(times) for name, times in took.items()}
        result.extra["call_millis"] = {name: summary(times) for name, times in took.items()}
        return [result]


async def _call_for_ever(system: System) -> dict[str, list[float]]:
    """Make calls at a constant rate until cancelled; return how long each took, in milliseconds."""
    at = datetime.now(UTC) + timedelta(days=30)
    numbers = itertools.count()
    created: list[str] = []

    async def create() -> None:
        job = one_time_job(f"mixed-{next(numbers)}", system.sink.url, at)
        request = job_service_pb2.CreateJobRequest(job=job, allow_duplicate=True)
        created.append((await system.jobs.CreateJob(request, metadata=ORG, timeout=30)).job.job_id)

    async def get() -> None:
        await system.jobs.GetJob(job_service_pb2.GetJobRequest(job_id=created[-1]), metadata=ORG, timeout=30)

    async def list_jobs() -> None:
        await system.jobs.ListJobs(job_service_pb2.ListJobsRequest(page_size=50), metadata=ORG, timeout=30)

    async def list_executions() -> None:
        request = execution_service_pb2.ListExecutionsRequest(page_size=50)
        await system.executions.ListExecutions(request, metadata=ORG, timeout=30)

    took: defaultdict[str, list[float]] = defaultdict(list)

    async def timed(call: Callable[[], Awaitable[None]]) -> None:
        began = time.perf_counter()
        await call()
        took[call.__name__].append(1000 * (time.perf_counter() - began))

    await create()
    begun = time.perf_counter()
    calls = itertools.cycle([create, get, get, get, list_jobs, list_executions, get, get])
    try:
        async with asyncio.TaskGroup() as tasks:
            for number in itertools.count():
                await asyncio.sleep(max(0.0, begun + number / CALLS_PER_SECOND - time.perf_counter()))
                tasks.create_task(timed(next(calls)))
    except asyncio.CancelledError:
        return dict(took)
    return dict(took)
