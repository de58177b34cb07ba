"""How fast jobs are created: by batches of the largest size, and one by one by many callers at a time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from punctual.v1 import job_service_pb2

from bench.callers import measure_calls
from bench.cpu import CpuMeter
from bench.jobs import create, one_time_job
from bench.measure import Result
from bench.runs import Run
from bench.system import ORG, System

BATCH = 1_000
CALLERS = 50


async def run(run: Run) -> list[Result]:
    """Measure both ways on one system."""
    async with run.system() as system:
        return [
            await _by_batches(system, run.size(20_000, 4_000)),
            await _one_by_one(system, run.size(5_000, 1_000)),
        ]


async def _by_batches(system: System, count: int) -> Result:
    at = datetime.now(UTC) + timedelta(days=30)
    jobs = [one_time_job(f"batch-{n}", system.sink.url, at + timedelta(seconds=n % 1000)) for n in range(count)]
    meter, began = CpuMeter(system.pids), time.perf_counter()
    await create(system, jobs, batch=BATCH)
    seconds = time.perf_counter() - began
    meter.stop()
    return Result("create-batch", "punctual", count, seconds, cpu=meter.seconds, extra={"batch": BATCH})


async def _one_by_one(system: System, count: int) -> Result:
    at = datetime.now(UTC) + timedelta(days=30)

    async def create_one(number: int) -> None:
        job = one_time_job(f"single-{number}", system.sink.url, at + timedelta(seconds=number % 1000))
        request = job_service_pb2.CreateJobRequest(job=job, allow_duplicate=True)
        await system.jobs.CreateJob(request, metadata=ORG, timeout=60)

    return await measure_calls(system, "create-unary", count, create_one, callers=CALLERS)
