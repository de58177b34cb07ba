"""What the system costs when nothing is due: CPU and memory of each process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from bench.cpu import CpuMeter, resident_of
from bench.jobs import create, one_time_job
from bench.measure import Result
from bench.runs import Run
from bench.system import System

JOBS = 1_000
STILL_SECONDS = 3.0
"""Before the measurement, so that what the creation left to do is done."""


async def run(run: Run) -> list[Result]:
    """Measure a system with jobs whose time is far away."""
    async with run.system() as system:
        at = datetime.now(UTC) + timedelta(days=30)
        await create(system, [one_time_job(f"idle-{n}", system.sink.url, at) for n in range(JOBS)])
        return [await measure(system, seconds=run.size(30, 6))]


async def measure(system: System, *, seconds: float, name: str = "idle") -> Result:
    """Measure what a system costs that has nothing to do."""
    await asyncio.sleep(STILL_SECONDS)
    meter = CpuMeter(system.pids)
    await asyncio.sleep(seconds)
    meter.stop()
    percent = {process: round(100 * used / seconds, 2) for process, used in meter.seconds.items()}
    sizes = {process: size // 2**20 for process, size in resident_of(system.pids).items()}
    extra = {"cpu_percent": percent, "resident_megabytes": sizes, "cpu_percent_all": round(sum(percent.values()), 2)}
    return Result(name, "punctual", seconds=seconds, cpu=meter.seconds, extra=extra)
