"""Measures APScheduler over its MongoDB job store, its outcomes stored in MongoDB as well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient

from bench.measure import Result
from bench.notes import running_sink
from bench.peers import running
from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.process import ChildProcess

READY_SECONDS = 120.0


async def measure(folder: Path, name: str, offsets_millis: Sequence[int], *, create_seconds: float) -> Result:
    """Let a scheduler add jobs for these times after an instant, then measure it."""
    async with MongoReplicaSet(folder / "mongod", cache_gigabytes=1.0) as mongo, running_sink(folder) as sink:
        path, due = running.due_times(folder, offsets_millis, create_seconds)
        words = running.argv("apscheduler_program", mongo.uri, str(path), sink.url)
        log = folder / "apscheduler.log"
        scheduler = ChildProcess("apscheduler", words, output=log, env=running.environment())
        scheduler.start()
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo.uri)
        try:
            ready: list[float] = []

            async def is_ready() -> bool:
                lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
                ready.extend(float(json.loads(line)["create_per_second"]) for line in lines)
                await asyncio.sleep(0.1)
                return bool(ready)

            await scheduler.wait_ready(is_ready, seconds=READY_SECONDS)

            async def is_over() -> bool:
                return await client.peer.outcomes.estimated_document_count() >= len(due)

            pids = {"apscheduler": scheduler.pid, "mongod": mongo.processes[0].pid}
            label = "APScheduler + MongoDB"
            return await running.measure(
                name, label, due=due, pids=pids, sink=sink, is_over=is_over, created_per_second=ready[0]
            )
        finally:
            await client.close()
            await scheduler.stop()
