"""What the peers' measurements share: their Python, their due times as a file, and the wait for their end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.cpu import CpuMeter
from bench.jobs import sleep_until
from bench.measure import Result, judge
from bench.notes import Sink

PYTHON = Path(os.environ.get("PUNCTUAL_BENCH_PYTHON", ".cache/bench/bin/python"))
"""The environment of requirements-bench.lock; `make bench` makes it."""
CONCURRENCY = 200
"""As an executor's default."""
_START_SECONDS = 3.0
"""For the worker's process to start."""
_LEAD_SECONDS = 3.0
_PATIENCE_SECONDS = 180.0


def installed() -> bool:
    """Whether the peers' environment is there."""
    return PYTHON.exists()


def environment() -> dict[str, str]:
    """Return what the peers' programs are started with."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}


def argv(program: str, *words: str) -> list[str]:
    """Return the command line of a peer's program."""
    # Not by -m: APScheduler imports the module again under its full name, to which what it holds must belong.
    return [str(PYTHON), "-c", f"from bench.peers.{program} import main; main()", *words]


def due_times(folder: Path, offsets_millis: Sequence[int], create_seconds: float) -> tuple[Path, dict[str, int]]:
    """Write when each job is due to a file, later than they are surely created; return it and the nanoseconds by id."""
    at = (datetime.now(UTC) + timedelta(seconds=_START_SECONDS + _LEAD_SECONDS + create_seconds)).replace(microsecond=0)
    start = round(at.timestamp() * 1000)
    due = {f"peer-{number}": start + offset for number, offset in enumerate(offsets_millis)}
    path = folder / "due.json"
    path.write_text(json.dumps(due))
    return path, {name: millis * 1_000_000 for name, millis in due.items()}


async def measure(
    name: str,
    label: str,
    *,
    due: dict[str, int],
    pids: dict[str, int],
    sink: Sink,
    is_over: Callable[[], Awaitable[bool]],
    created_per_second: float,
) -> Result:
    """Measure from shortly before the first due instant until all is over."""
    first, last = min(due.values()) / 1e9, max(due.values()) / 1e9
    if time.time() > first - 0.5:
        print(f"{label} was still creating jobs when the first was due", file=sys.stderr)
    await sleep_until(datetime.fromtimestamp(first - _LEAD_SECONDS, UTC))
    meter = CpuMeter(pids)
    await sleep_until(datetime.fromtimestamp(last, UTC))
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not await is_over():
                await asyncio.sleep(0.05)
    except TimeoutError:
        print(f"{label} did not end in time", file=sys.stderr)
    seconds = time.time() - first
    meter.stop()
    extra = {"create_per_second": round(created_per_second)}
    result = Result(name, label, len(due), max(seconds, last - first), cpu=meter.seconds, extra=extra)
    return judge(result, await sink.take_notes(), due)
