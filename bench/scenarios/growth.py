"""Whether the system costs the same beside a small store and beside a large one.

The large store is loaded past the API: copies of a real job and a real execution under other ids, times and
partitions. Then the same is measured as before: steady load, Get, List, and what it costs to do nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from punctual.v1 import execution_service_pb2, job_service_pb2

from bench.jobs import create, one_time_job
from bench.measure import Result, summary
from bench.runs import Run
from bench.scenarios import idle, steady
from bench.system import ORG, System

SMALL = 1_000
TEMPLATES = 10
PER_SECOND = 100
EXECUTIONS_PER_JOB = 5
CALLS = 300
"""Of each kind of read; a quick run makes fewer."""
CHUNK = 5_000
_ID_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


async def run(run: Run) -> list[Result]:
    """Measure beside a thousand jobs, load the rest, and measure again; a job has as many executions in both stores."""
    async with run.system() as system:
        at = datetime.now(UTC) + timedelta(days=30)
        await create(system, [one_time_job(f"growth-{n}", system.sink.url, at) for n in range(TEMPLATES)])
        # What it leaves is what the load copies; and nobody is measured in the first second of a process.
        await steady.measure(system, per_second=PER_SECOND, seconds=1)
        small = await _measure(system, run, "small", await _load(system, SMALL))
        began = time.perf_counter()
        some = await _load(system, run.growth_jobs)
        loading = time.perf_counter() - began
        large = await _measure(system, run, "large", some)
        sizes = await system.database.command("dbStats")
        for result in large:
            result.extra |= {
                "jobs": run.growth_jobs,
                "executions": EXECUTIONS_PER_JOB * run.growth_jobs,
                "load_seconds": round(loading),
                "data_megabytes": round(sizes["dataSize"] / 2**20),
                "index_megabytes": round(sizes["indexSize"] / 2**20),
            }
        return small + large


async def _measure(system: System, run: Run, size: str, job_ids: Sequence[str]) -> list[Result]:
    """Measure several times on one store: loading it takes longer than all measurements."""
    return [result for _ in range(run.size(3, 1)) for result in await _measure_once(system, run, size, job_ids)]


async def _measure_once(system: System, run: Run, size: str, job_ids: Sequence[str]) -> list[Result]:
    before = await system.database.executions.estimated_document_count()
    steadily = await steady.measure(
        system,
        per_second=PER_SECOND,
        seconds=run.size(20, 4),
        name="growth",
        label=size,
        settled=before,
    )
    steadily.extra["call_millis"] = await _calls(system, job_ids[: run.size(CALLS, 60)])
    still = await idle.measure(system, seconds=run.size(20, 3), name="growth-idle")
    still.system = size
    return [steadily, still]


async def _calls(system: System, job_ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return how long reads of these jobs take, one after the other, in milliseconds."""

    async def get(job_id: str) -> None:
        await system.jobs.GetJob(job_service_pb2.GetJobRequest(job_id=job_id), metadata=ORG, timeout=30)

    async def list_jobs(_: str) -> None:
        await system.jobs.ListJobs(job_service_pb2.ListJobsRequest(page_size=50), metadata=ORG, timeout=30)

    async def list_executions(job_id: str) -> None:
        request = execution_service_pb2.ListExecutionsRequest(job_id=job_id, page_size=50)
        await system.executions.ListExecutions(request, metadata=ORG, timeout=30)

    calls: list[Callable[[str], Awaitable[None]]] = [get, list_jobs, list_executions]
    took: dict[str, dict[str, float]] = {}
    for call in calls:
        times = []
        for job_id in job_ids:
            began = time.perf_counter()
            await call(job_id)
            times.append(1000 * (time.perf_counter() - began))
        took[call.__name__] = summary(times)
    return took


async def _load(system: System, count: int) -> list[str]:
    """Load jobs whose time is far away, and final executions of theirs; return the ids of some, from all over."""
    jobs, executions = system.database.jobs, system.database.executions
    job = await jobs.find_one({"next_due_time": {"$ne": None}})
    execution = await executions.find_one({"state": "SUCCEEDED"})
    if job is None or execution is None:
        raise RuntimeError("there is nothing to copy")
    # What makes a later equal submission a duplicate is unique to each job.
    job = {name: value for name, value in job.items() if name not in ("fingerprint_slot", "duplicate_until")}
    chance = random.Random(count)
    some: list[str] = []
    for ids in _ids(chance, count):
        some += chance.sample(ids, -(-CALLS * len(ids) // count))
        await jobs.insert_many([_job_copy(job, job_id, chance) for job_id in ids], ordered=False)
        for number in range(EXECUTIONS_PER_JOB):
            copies = [_execution_copy(execution, job_id, number) for job_id in ids]
            await executions.insert_many(copies, ordered=False)
    # What has been loaded is written out now, not while it is measured.
    await system.database.client.admin.command("fsync")
    chance.shuffle(some)
    return some


def _ids(chance: random.Random, count: int) -> Iterator[list[str]]:
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        # Their first letters say when they were created; so these sort among, not after, what is created now.
        yield ["01" + "".join(chance.choices(_ID_LETTERS, k=24)) for _ in range(size)]


def _job_copy(job: dict[str, Any], job_id: str, chance: random.Random) -> dict[str, Any]:
    due = job["next_due_time"] + timedelta(seconds=chance.randrange(30 * 86_400))
    return {
        **job,
        "_id": job_id,
        "partition": chance.randrange(256),
        "next_fire_time": due,
        "next_due_time": due,
        "name": f"copy-{job_id}",
    }


def _execution_copy(execution: dict[str, Any], job_id: str, number: int) -> dict[str, Any]:
    fire_time = execution["fire_time"] - timedelta(hours=number + 1)
    return {
        **execution,
        "_id": f"{job_id}-{round(fire_time.timestamp() * 1000)}",
        "job_id": job_id,
        "fire_time": fire_time,
        "due_time": fire_time,
    }
