"""Half an hour of steady load by jobs that fire every minute: whether memory grows, and lag all the while.

Memory is looked at every few seconds. What a process takes while it warms up is no growth, so the slope begins after
the first minutes.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from bench.cpu import CpuMeter, resident_of
from bench.jobs import create, cron_job, sleep_until
from bench.measure import Result, judge, slope_per_second
from bench.runs import Run
from bench.scenarios.recurring import GRACE_SECONDS, SPREAD_SECONDS, due_of, next_minute
from bench.system import System

JOBS = 3_000
"""50 executions a second."""
WARM_UP_MINUTES = 5
LOOK_SECONDS = 5.0


async def run(run: Run) -> list[Result]:
    """Measure thirty minutes after a warm-up; quick: one minute without."""
    warm_up, minutes = run.size(WARM_UP_MINUTES, 0), run.size(30, 1)
    async with run.system() as system:
        jobs = [cron_job(f"soak-{n}", system.sink.url, "* * * * *", jitter_seconds=SPREAD_SECONDS) for n in range(JOBS)]
        await create(system, jobs)
        first = next_minute() + timedelta(minutes=warm_up)
        until = first + timedelta(minutes=minutes)
        await sleep_until(first)
        meter = CpuMeter(system.pids)
        points = await _watch(system, until)
        await sleep_until(until + timedelta(seconds=GRACE_SECONDS))
        meter.stop()
        due = await due_of(system, first, until)
        result = Result("soak", "punctual", len(due), (until - first).total_seconds(), cpu=meter.seconds)
        judge(result, await system.sink.take_notes(), due)
        result.missing += max(minutes * JOBS - len(due), 0)
        result.extra = {
            "megabytes_an_hour": {name: round(slope_per_second(seen) * 3600, 2) for name, seen in points.items()},
            "megabytes_at_first": {name: round(seen[0][1], 1) for name, seen in points.items()},
            "megabytes_at_last": {name: round(seen[-1][1], 1) for name, seen in points.items()},
        }
        return [result]


async def _watch(system: System, until: datetime) -> dict[str, list[tuple[float, float]]]:
    """Return the resident megabytes of each process by second."""
    began = datetime.now(UTC)
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in system.pids}
    while (now := datetime.now(UTC)) < until:
        for name, size in resident_of(system.pids).items():
            points[name].append(((now - began).total_seconds(), size / 2**20))
        await asyncio.sleep(LOOK_SECONDS)
    return points
