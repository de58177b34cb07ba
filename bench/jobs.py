"""Creates the jobs of a scenario, and knows when each execution is due."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from punctual.v1 import job_pb2, job_service_pb2, schedule_pb2

from bench.system import ORG, System

BATCH = 500


def one_time_job(name: str, target: str, at: datetime) -> job_pb2.Job:
    """Return a job that fires once, with no limit of its own."""
    instant = Timestamp()
    instant.FromDatetime(at)
    return job_pb2.Job(
        name=name,
        schedule=schedule_pb2.Schedule(one_time=schedule_pb2.OneTimeRule(instant=instant)),
        target=job_pb2.Target(url=target, prompt=f"What is the state of {name}?"),
        rate_limit_policy=job_pb2.RateLimitPolicy(max_requests_per_minute=60_000),
    )


def cron_job(name: str, target: str, expression: str) -> job_pb2.Job:
    """Return a job that fires where an expression matches."""
    return job_pb2.Job(
        name=name,
        schedule=schedule_pb2.Schedule(cron=schedule_pb2.CronRule(expression=expression)),
        target=job_pb2.Target(url=target, prompt=f"What is the state of {name}?"),
        rate_limit_policy=job_pb2.RateLimitPolicy(max_requests_per_minute=60_000),
    )


async def create(system: System, jobs: Sequence[job_pb2.Job]) -> list[job_pb2.Job]:
    """Create jobs in batches; returns them as stored. Any refusal is an error of the benchmark."""
    stored: list[job_pb2.Job] = []
    for start in range(0, len(jobs), BATCH):
        requests = [
            job_service_pb2.CreateJobRequest(job=job, allow_duplicate=True) for job in jobs[start : start + BATCH]
        ]
        answer = await system.jobs.BatchCreateJobs(
            job_service_pb2.BatchCreateJobsRequest(requests=requests), metadata=ORG, timeout=60
        )
        for item in answer.results:
            if item.WhichOneof("result") != "job":
                raise RuntimeError(f"job refused: {item.error}")
            stored.append(item.job)
    return stored


def due_nanos(jobs: Sequence[job_pb2.Job]) -> dict[str, int]:
    """Return the due time of each job's first execution, by its id, in nanoseconds since the epoch."""
    due = {}
    for job in jobs:
        nanos = job.next_fire_time.ToNanoseconds()
        due[f"{job.job_id}-{nanos // 1_000_000}"] = nanos
    return due


async def wait_final(system: System, count: int, *, seconds: float) -> None:
    """Wait until that many executions are final in the database."""
    async with asyncio.timeout(seconds):
        while await system.database.executions.count_documents({"end_time": {"$exists": True}}) < count:
            await asyncio.sleep(0.05)


async def sleep_until(at: datetime) -> None:
    """Wait until an instant."""
    await asyncio.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))
