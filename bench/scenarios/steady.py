"""One-time jobs with due times spread evenly: lag, and CPU for each execution, at a constant rate."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.cpu import CpuMeter
from bench.jobs import create, due_nanos, one_time_job, sleep_until, wait_final
from bench.measure import Result, judge
from bench.system import running_system

LEAD_IN_SECONDS = 10


async def run(folder: Path, *, per_second: int, seconds: int) -> Result:
    """Create the jobs ahead of time, then measure while they come due."""
    async with running_system(folder) as system:
        start = datetime.now(UTC) + timedelta(seconds=LEAD_IN_SECONDS)
        chance = random.Random(per_second)
        offsets = sorted(chance.uniform(0, seconds) for _ in range(per_second * seconds))
        jobs = await create(
            system,
            [
                one_time_job(f"steady-{n}", system.target, start + timedelta(milliseconds=round(offset * 1000)))
                for n, offset in enumerate(offsets)
            ],
        )
        await sleep_until(start - timedelta(seconds=2))
        meter = CpuMeter(system.pids)
        await wait_final(system, len(jobs), seconds=seconds + 60)
        cpu = meter.read()
        result = Result(f"steady-{per_second}", "punctual", len(jobs), seconds, cpu=cpu, extra=_sizes(meter))
        return judge(result, await system.take_notes(), due_nanos(jobs))


def _sizes(meter: CpuMeter) -> dict[str, object]:
    return {"resident_megabytes": {name: size // 2**20 for name, size in meter.resident().items()}}
