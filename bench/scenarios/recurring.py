"""Jobs that fire every minute: many on the same second, and as many spread over the minute by their jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from punctual.v1 import job_pb2

from bench.cpu import CpuMeter
from bench.jobs import create, cron_job, sleep_until
from bench.measure import Result, judge
from bench.runs import Run
from bench.system import System

SPREAD_SECONDS = 59
GRACE_SECONDS = 3.0
"""After the last due instant, for what is late."""


async def run(run: Run) -> list[Result]:
    """Measure both kinds together for whole minutes; quick: what is due in the first seconds of one."""
    count = run.size(1_000, 200)
    async with run.system() as system:
        target = system.sink.url
        same = await create(system, [cron_job(f"same-{n}", target, "* * * * *") for n in range(count)])
        spread = await create(
            system, [cron_job(f"spread-{n}", target, "* * * * *", jitter_seconds=SPREAD_SECONDS) for n in range(count)]
        )
        first = next_minute()
        minutes = run.size(3, 1)
        until = first + timedelta(minutes=minutes) if not run.quick else first + timedelta(seconds=8)
        await sleep_until(first - timedelta(seconds=2))
        meter = CpuMeter(system.pids)
        await sleep_until(until + timedelta(seconds=GRACE_SECONDS))
        meter.stop()
        notes = await system.sink.take_notes()
        due = await due_of(system, first, until)
        named = {"recurring-same": _of(same, due), "recurring-spread": _of(spread, due)}
        expected = {"recurring-same": minutes * count, "recurring-spread": None if run.quick else minutes * count}
        results = []
        for name, of_kind in named.items():
            # What both kinds used together, shared out by how many there were of each.
            share = len(of_kind) / max(len(due), 1)
            cpu = {process: used * share for process, used in meter.seconds.items()}
            seconds = (until - first).total_seconds()
            result = judge(Result(name, "punctual", len(of_kind), seconds, cpu=cpu), notes, of_kind)
            wanted = expected[name]
            if wanted is not None:
                # A fire of which there is not even an execution.
                result.missing += max(wanted - len(of_kind), 0)
            results.append(result)
        return results


def next_minute() -> datetime:
    """Return the next whole minute that leaves time for what is due on it to be acquired."""
    first = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    return first if first - datetime.now(UTC) >= timedelta(seconds=GRACE_SECONDS) else first + timedelta(minutes=1)


def _of(jobs: list[job_pb2.Job], due: dict[str, int]) -> dict[str, int]:
    ids = {job.job_id for job in jobs}
    return {execution_id: at for execution_id, at in due.items() if execution_id.rpartition("-")[0] in ids}


async def due_of(system: System, first: datetime, until: datetime) -> dict[str, int]:
    """Return when each execution of the measured time is due, in nanoseconds since the epoch."""
    query = {"fire_time": {"$gte": first, "$lt": until}, "due_time": {"$lt": until}}
    cursor = system.database.executions.find(query, {"due_time": 1})
    return {found["_id"]: round(found["due_time"].timestamp() * 1000) * 1_000_000 async for found in cursor}
