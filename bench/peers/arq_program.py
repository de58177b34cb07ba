"""arq's side: `enqueue REDIS_URL DUE_FILE` or `work REDIS_URL TARGET`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from arq import create_pool  # type: ignore[import-not-found]
from arq.connections import RedisSettings  # type: ignore[import-not-found]
from arq.worker import Worker  # type: ignore[import-not-found]

CONCURRENCY = 200
POLL_SECONDS = 0.1
"""A fifth of the default, for the sake of its lag."""
BODY = b'{"prompt":"What is the state of burst-0?"}'
CALLERS = 50


async def post(context: dict[str, Any], execution_id: str) -> int:
    """Carry out one job."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": execution_id}
    async with context["session"].post(context["target"], data=BODY, headers=headers) as answer:
        await answer.read()
        return int(answer.status)


async def enqueue(url: str, due: dict[str, int]) -> float:
    """Enqueue all jobs; return how many a second."""
    pool = await create_pool(RedisSettings.from_dsn(url))
    waiting = iter(due.items())

    async def caller() -> None:
        for name, millis in waiting:
            at = datetime.fromtimestamp(millis / 1000, UTC)
            await pool.enqueue_job("post", name, _job_id=name, _defer_until=at)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return len(due) / (time.perf_counter() - began)


async def work(url: str, target: str) -> None:
    """Run a worker until killed."""

    async def begin(context: dict[str, Any]) -> None:
        context["target"] = target
        context["session"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    worker = Worker(
        functions=[post],
        redis_settings=RedisSettings.from_dsn(url),
        on_startup=begin,
        max_jobs=CONCURRENCY,
        poll_delay=POLL_SECONDS,
        handle_signals=False,
    )
    await worker.async_run()


def main() -> None:
    """Do what the command line says."""
    command, url, third = sys.argv[1:]
    if command == "enqueue":
        due = json.loads(Path(third).read_text())
        print(json.dumps({"create_per_second": uvloop.run(enqueue(url, due))}))
    else:
        uvloop.run(work(url, third))
