"""Many one-time jobs due at one instant: how fast they are through, at what CPU, each exactly once and stored."""

from __future__ import annotations

import time
from datetime import timedelta

from bench.cpu import CpuMeter
from bench.jobs import create, due_nanos, first_due, one_time_job, sleep_until, wait_final
from bench.measure import Result, judge
from bench.peers import apscheduler, arq
from bench.runs import Run
from bench.system import System

METER_LEAD_SECONDS = 3.0
"""The meter starts before the tick materializes, so that all of the work counts."""


async def run(run: Run) -> list[Result]:
    """Measure one executor, two of them, and the peers."""
    count = run.size(10_000, 2_000)
    results = []
    async with run.system() as system:
        results.append(await measure(system, count=count))
    if not run.quick:
        async with run.system(executors=2) as system:
            results.append(await measure(system, count=count, label="punctual, 2 executors"))
    if run.with_peers:
        results.append(await arq.measure(run.new_folder(), "burst", [0] * count, create_seconds=count / 1000))
        fewer = run.size(3_000, 300)
        # A tenth of the speed: the full count would take minutes and change no ratio.
        results.append(await apscheduler.measure(run.new_folder(), "burst", [0] * fewer, create_seconds=fewer / 150))
    return results


async def measure(system: System, *, count: int, name: str = "burst", label: str = "punctual") -> Result:
    """Create the jobs ahead of time, then measure from the due instant until the last outcome is committed."""
    at = first_due(count)
    began = time.perf_counter()
    jobs = await create(system, [one_time_job(f"burst-{n}", system.sink.url, at) for n in range(count)])
    created = count / (time.perf_counter() - began)
    await sleep_until(at - timedelta(seconds=METER_LEAD_SECONDS))
    meter = CpuMeter(system.pids)
    await wait_final(system, count, at, seconds=180)
    seconds = time.time() - at.timestamp()
    meter.stop()
    result = Result(name, label, count, seconds, cpu=meter.seconds, extra={"create_per_second": round(created)})
    return judge(result, await system.sink.take_notes(), due_nanos(jobs))
