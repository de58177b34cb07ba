"""Measures arq: its queue and its results in Redis, one worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from redis.asyncio import Redis

from bench.measure import Result
from bench.notes import running_sink
from bench.peers import running
from tools.devstack.process import ChildProcess
from tools.devstack.valkey import ValkeyServer


async def measure(folder: Path, name: str, offsets_millis: Sequence[int], *, create_seconds: float) -> Result:
    """Enqueue jobs for these times after an instant, then measure one worker."""
    async with ValkeyServer(folder / "valkey") as valkey, running_sink(folder) as sink:
        path, due = running.due_times(folder, offsets_millis, create_seconds)
        enqueue = await asyncio.create_subprocess_exec(
            *running.argv("arq_program", "enqueue", valkey.url, str(path)),
            stdout=asyncio.subprocess.PIPE,
            env=running.environment(),
        )
        output, _ = await enqueue.communicate()
        words = running.argv("arq_program", "work", valkey.url, sink.url)
        worker = ChildProcess("arq", words, output=folder / "arq.log", env=running.environment())
        worker.start()
        redis = Redis.from_url(valkey.url)
        try:

            async def is_over() -> bool:
                # A job leaves the queue in the transaction that stores its result.
                return not await redis.zcard("arq:queue")

            pids = {"worker": worker.pid, "valkey": valkey.process.pid}
            created = float(json.loads(output)["create_per_second"])
            return await running.measure(
                name, "arq", due=due, pids=pids, sink=sink, is_over=is_over, created_per_second=created
            )
        finally:
            await redis.aclose()
            await worker.stop()
