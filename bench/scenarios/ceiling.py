"""How near one executor comes to a bare POST loop with the same concurrency, when the scheduler costs it nothing.

The executor is the real process with its real Redis; the scheduler is a stub that grants out of a template. Both sides
send the same body to the same sink, one after the other, so that the ratio is of one machine at one time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from punctual.internal.v1.stream_entry_pb2 import StreamEntry

from bench.cpu import CpuMeter
from bench.measure import Result, judge
from bench.notes import Sink, running_sink
from bench.runs import Run
from bench.stub_scheduler import StubScheduler, serving
from bench.system import service_environment
from libs.common.streams.connection import open_redis
from libs.common.streams.due_stream import DueStream
from tools.devstack.ports import LOOPBACK, free_ports, is_listening
from tools.devstack.process import ChildProcess
from tools.devstack.valkey import ValkeyServer

CONCURRENCY = 200
"""An executor's default."""
DUE_IN_SECONDS = 2.0


async def run(run: Run) -> list[Result]:
    """Measure the bare loop, and the executor between a full stream and a stub."""
    return await measure(run.new_folder(), count=run.size(20_000, 4_000))


async def measure(folder: Path, *, count: int, places: int = 0, label: str = "executor") -> list[Result]:
    """Measure both, with so many places at the host for the executor; 0: no limit."""
    async with running_sink(folder) as sink:
        return [await _bare(sink, count), await _executor(folder, sink, count, places, label)]


async def _bare(sink: Sink, count: int) -> Result:
    words = ["--target", sink.url, "--count", str(count), "--concurrency", str(CONCURRENCY)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.bare_loop", *words, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    figures = json.loads(output)
    await sink.take_notes()
    return Result("ceiling", "bare aiohttp", count, figures["seconds"], cpu={"loop": figures["cpu_seconds"]})


async def _executor(folder: Path, sink: Sink, count: int, places: int, label: str) -> Result:
    scheduler_port, executor_port = free_ports(2)
    at = datetime.now(UTC) + timedelta(seconds=DUE_IN_SECONDS + count / 10_000)
    due = Timestamp()
    due.FromDatetime(at)
    stub = StubScheduler(sink.url, due, concurrent_requests=places)
    async with ValkeyServer(folder / "valkey") as valkey, serving(stub, scheduler_port):
        stream = DueStream(open_redis(valkey.url, max_connections=4))
        await stream.ensure_group()
        ids = [f"{number:026d}-{due.ToMilliseconds()}" for number in range(count)]
        for start in range(0, count, 500):
            await stream.add(
                [(0, StreamEntry(execution_id=one, job_id="bench", due_time=due)) for one in ids[start : start + 500]]
            )
        environment = service_environment(valkey.url) | {
            "PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS": f"{LOOPBACK}:{scheduler_port}",
            "PUNCTUAL_EXECUTOR_HEALTH_ADDRESS": f"{LOOPBACK}:{executor_port}",
        }
        argv = [sys.executable, "-m", "services.executor"]
        process = ChildProcess("executor", argv, output=folder / "executor.log", env=environment)
        process.start()
        try:

            async def listening() -> bool:
                return is_listening(executor_port)

            await process.wait_ready(listening, seconds=30)
            await asyncio.sleep((at - datetime.now(UTC)).total_seconds())
            meter = CpuMeter({"executor": process.pid, "valkey": valkey.process.pid})
            began = time.perf_counter()
            async with asyncio.timeout(60 + count / 100):
                while stub.reported < count:
                    await asyncio.sleep(0.005)
            seconds = time.perf_counter() - began
            meter.stop()
        finally:
            await process.stop()
            await stream.close()
    result = Result("ceiling", label, count, seconds, cpu=meter.seconds)
    return judge(result, await sink.take_notes(), dict.fromkeys(ids, due.ToNanoseconds()))
