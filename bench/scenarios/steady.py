"""One-time jobs with due times spread evenly: lag, and CPU for each execution, at a constant rate.

A bare timer sends as often beside Punctual: its lag is what the machine adds in those seconds, whoever sends.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from datetime import datetime, timedelta
from pathlib import Path

from bench.cpu import CpuMeter, resident_of
from bench.jobs import create, due_nanos, first_due, one_time_job, sleep_until, wait_final
from bench.measure import Result, judge
from bench.notes import running_sink
from bench.peers import apscheduler, arq
from bench.runs import Run
from bench.system import System


async def run(run: Run) -> list[Result]:
    """Measure 100 and 300 a second; the peers as well, unless it has to be quick."""
    seconds = run.size(30, 5)
    results = []
    for rate in (300,) if run.quick else (100, 300):
        async with run.system() as system, asyncio.TaskGroup() as tasks:
            start = first_due(rate * seconds)
            timer = tasks.create_task(_bare_timer(run.new_folder(), start, per_second=rate, seconds=seconds))
            results.append(await measure(system, per_second=rate, seconds=seconds, start=start))
            results.append(await timer)
        if run.with_peers and not run.quick:
            due = due_millis(rate, seconds)
            name = f"steady-{rate}"
            results.append(await arq.measure(run.new_folder(), name, due, create_seconds=len(due) / 1000))
            results.append(await apscheduler.measure(run.new_folder(), name, due, create_seconds=len(due) / 150))
    return results


async def measure(
    system: System,
    *,
    per_second: int,
    seconds: int,
    start: datetime | None = None,
    name: str = "",
    label: str = "punctual",
    settled: int = 0,
) -> Result:
    """Create the jobs ahead of time, then measure while they come due, beside `settled` executions that were there."""
    start = start or first_due(per_second * seconds)
    jobs = await create(
        system,
        [
            one_time_job(f"steady-{n}", system.sink.url, start + timedelta(milliseconds=millis))
            for n, millis in enumerate(due_millis(per_second, seconds))
        ],
    )
    await sleep_until(start - timedelta(seconds=2))
    meter = CpuMeter(system.pids)
    await wait_final(system, len(jobs), start + timedelta(seconds=seconds), before=settled, seconds=120)
    meter.stop()
    sizes = {process: size // 2**20 for process, size in resident_of(system.pids).items()}
    result = Result(
        name or f"steady-{per_second}",
        label,
        len(jobs),
        seconds,
        cpu=meter.seconds,
        extra={"resident_megabytes": sizes},
    )
    return judge(result, await system.sink.take_notes(), due_nanos(jobs))


async def _bare_timer(folder: Path, start: datetime, *, per_second: int, seconds: int) -> Result:
    # At times of its own: at the same ones it would stand in Punctual's way each time.
    first = round(start.timestamp()) * 1_000_000_000
    # The number makes each of them unique.
    nanos = [first + millis * 1_000_000 + n for n, millis in enumerate(due_millis(per_second, seconds, seed=0))]
    due = {str(at): at for at in nanos}
    path = folder / "due.json"
    path.write_text(json.dumps(nanos))
    async with running_sink(folder) as sink:
        words = ["--port", str(sink.port), "--due", str(path)]
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.bare_timer", *words)
        await process.wait()
        result = Result(f"steady-{per_second}", "bare timer beside", len(due), seconds)
        return judge(result, await sink.take_notes(), due)


def due_millis(per_second: int, seconds: int, seed: int | None = None) -> list[int]:
    """Return when each is due, in milliseconds after the first instant; the same for every system under test."""
    chance = random.Random(per_second if seed is None else seed)
    return sorted(round(chance.uniform(0, seconds) * 1000) for _ in range(per_second * seconds))
