"""Many one-time jobs due at one instant: how fast they are through, at what CPU, each exactly once and stored."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.cpu import CpuMeter
from bench.jobs import create, due_nanos, one_time_job, sleep_until, wait_final
from bench.measure import Result, judge
from bench.system import running_system


async def run(folder: Path, *, count: int, executors: int = 1) -> Result:
    """Create the jobs ahead of time, then measure from the due instant until the last outcome is committed."""
    async with running_system(folder, executors=executors) as system:
        # Far enough ahead that creating them is over before the tick first sees them.
        at = datetime.now(UTC) + timedelta(seconds=8 + count / 1500)
        at -= timedelta(microseconds=at.microsecond)
        began = time.perf_counter()
        jobs = await create(system, [one_time_job(f"burst-{n}", system.target, at) for n in range(count)])
        created = count / (time.perf_counter() - began)
        await sleep_until(at - timedelta(seconds=3))
        # From before the tick materializes, so that all of the work counts.
        meter = CpuMeter(system.pids)
        await wait_final(system, count, seconds=120)
        seconds = time.time() - at.timestamp()
        cpu = meter.read()
        name = "punctual" if executors == 1 else f"punctual x{executors} executors"
        result = Result("burst", name, count, seconds, cpu=cpu, extra={"create_per_second": created})
        return judge(result, await system.take_notes(), due_nanos(jobs))
