"""Many callers at a time, each making its next call when the last one is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench.cpu import CpuMeter
from bench.measure import Result, summary
from bench.system import System


async def measure_calls(
    system: System, name: str, count: int, call: Callable[[int], Awaitable[object]], *, callers: int
) -> Result:
    """Let so many callers make `count` calls between them; `call` takes the number of each."""
    numbers = iter(range(count))
    took: list[float] = []

    async def caller() -> None:
        for number in numbers:
            began = time.perf_counter()
            await call(number)
            took.append(1000 * (time.perf_counter() - began))

    meter, began = CpuMeter(system.pids), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    seconds = time.perf_counter() - began
    meter.stop()
    extra = {"callers": callers, "call_millis": summary(took)}
    return Result(name, "punctual", count, seconds, cpu=meter.seconds, extra=extra)
