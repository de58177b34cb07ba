"""How fast jobs are created: by batches of the largest size, and one by one by many callers at a time."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from punctual.v1 import job_service_pb2

from bench.cpu import CpuMeter
from bench.jobs import create, one_time_job
from bench.measure import Result, summary
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
    numbers = iter(range(count))
    took: list[float] = []

    async def caller() -> None:
        for number in numbers:
            job = one_time_job(f"single-{number}", system.sink.url, at + timedelta(seconds=number % 1000))
            began = time.perf_counter()
            await system.jobs.CreateJob(
                job_service_pb2.CreateJobRequest(job=job, allow_duplicate=True), metadata=ORG, timeout=60
            )
            took.append(1000 * (time.perf_counter() - began))

    meter, began = CpuMeter(system.pids), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    seconds = time.perf_counter() - began
    meter.stop()
    extra = {"callers": CALLERS, "call_millis": summary(took)}
    return Result("create-unary", "punctual", count, seconds, cpu=meter.seconds, extra=extra)
