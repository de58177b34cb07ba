"""Creates the jobs of a scenario, and knows when each execution is due and when all of them are over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from punctual.v1 import job_pb2, job_service_pb2, schedule_pb2

from bench.system import ORG, System

BATCH = 500
CONCURRENT_BATCHES = 2
CREATES_PER_SECOND = 1_000
"""What a scenario counts on when it chooses its first due instant; far below what is reached."""
LOOK_SECONDS = 0.1
"""Between two looks whether all is over; a figure is off by that at most."""
SETTLE_SECONDS = 4.0
"""Between the last create and the first due instant: above the tick's horizon, so that nothing is counted early."""


def one_time_job(name: str, target: str, at: datetime) -> job_pb2.Job:
    """Return a job that fires once."""
    instant = Timestamp()
    instant.FromDatetime(at)
    return _job(name, target, schedule_pb2.Schedule(one_time=schedule_pb2.OneTimeRule(instant=instant)))


def cron_job(name: str, target: str, expression: str, *, jitter_seconds: int = 0) -> job_pb2.Job:
    """Return a job that fires where an expression matches; jitter spreads jobs after that instant."""
    schedule = schedule_pb2.Schedule(cron=schedule_pb2.CronRule(expression=expression))
    if jitter_seconds:
        schedule.jitter.CopyFrom(Duration(seconds=jitter_seconds))
    return _job(name, target, schedule)


def _job(name: str, target: str, schedule: schedule_pb2.Schedule) -> job_pb2.Job:
    return job_pb2.Job(
        name=name,
        schedule=schedule,
        target=job_pb2.Target(url=target, prompt=f"What is the state of {name}?"),
        rate_limit_policy=job_pb2.RateLimitPolicy(max_requests_per_minute=60_000),
    )


async def create(system: System, jobs: Sequence[job_pb2.Job], *, batch: int = BATCH) -> list[job_pb2.Job]:
    """Create jobs in batches; returns them as stored. Any refusal is an error of the benchmark."""
    gate = asyncio.Semaphore(CONCURRENT_BATCHES)

    async def create_batch(part: Sequence[job_pb2.Job]) -> list[job_pb2.Job]:
        requests = [job_service_pb2.CreateJobRequest(job=job, allow_duplicate=True) for job in part]
        async with gate:
            answer = await system.jobs.BatchCreateJobs(
                job_service_pb2.BatchCreateJobsRequest(requests=requests), metadata=ORG, timeout=60
            )
        refused = next((item.error for item in answer.results if item.WhichOneof("result") != "job"), None)
        if refused is not None:
            raise RuntimeError(f"job refused: {refused}")
        return [item.job for item in answer.results]

    parts = await asyncio.gather(*(create_batch(jobs[start : start + batch]) for start in range(0, len(jobs), batch)))
    return [job for part in parts for job in part]


def due_nanos(jobs: Sequence[job_pb2.Job]) -> dict[str, int]:
    """Return the due time of each one-time job's execution, by its id, in nanoseconds since the epoch."""
    due = {}
    for job in jobs:
        nanos = job.next_fire_time.ToNanoseconds()
        due[f"{job.job_id}-{nanos // 1_000_000}"] = nanos
    return due


def first_due(count: int) -> datetime:
    """Return an instant by which so many jobs are surely created, on a whole second."""
    at = datetime.now(UTC) + timedelta(seconds=1 + SETTLE_SECONDS + count / CREATES_PER_SECOND)
    return at.replace(microsecond=0)


async def wait_final(system: System, count: int, last_due: datetime, *, before: int = 0, seconds: float) -> None:
    """Wait until so many executions are stored beyond those that were there before, and none is not final.

    Nothing is asked before the last one is due, and then ten times a second: the seek passes over what has just left
    its index, which costs the database more the more of it there is. The count runs ahead of what can be read, so that
    the first seek that finds nothing does not count.
    """
    executions = system.database.executions
    await sleep_until(last_due)
    async with asyncio.timeout(seconds):
        while await executions.estimated_document_count() < before + count:
            await asyncio.sleep(LOOK_SECONDS)
        nothing_found = 0
        while nothing_found < 2:
            live = await executions.find_one({"phase": {"$exists": True}}, {"_id": 1}, hint="live")
            nothing_found = nothing_found + 1 if live is None else 0
            await asyncio.sleep(LOOK_SECONDS if live else 0.02)


async def sleep_until(at: datetime) -> None:
    """Wait until an instant."""
    await asyncio.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))
