"""APScheduler's side: `MONGODB_URI DUE_FILE TARGET`; adds the jobs, says how fast, and runs until killed."""

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
from apscheduler.jobstores.mongodb import MongoDBJobStore  # type: ignore[import-not-found]
from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-not-found]
from pymongo import AsyncMongoClient, MongoClient

BODY = b'{"prompt":"What is the state of burst-0?"}'
context: dict[str, Any] = {}


async def post(execution_id: str) -> None:
    """Carry out one job, and store what came of it."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": execution_id}
    async with context["session"].post(context["target"], data=BODY, headers=headers) as answer:
        body = await answer.read()
        status = answer.status
    await context["outcomes"].insert_one({"_id": execution_id, "status": status, "body": body})


async def run(uri: str, due: dict[str, int], target: str) -> None:
    """Add the jobs to a scheduler that stands still, then let it run."""
    outcomes: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, w="majority", journal=True)
    context.update(
        target=target,
        session=aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)),
        outcomes=outcomes.peer.outcomes,
    )
    store = MongoDBJobStore(client=MongoClient(uri))
    defaults = {"misfire_grace_time": None, "max_instances": 1}
    scheduler = AsyncIOScheduler(jobstores={"default": store}, job_defaults=defaults, timezone=UTC)
    scheduler.start(paused=True)
    began = time.perf_counter()
    for name, millis in due.items():
        at = datetime.fromtimestamp(millis / 1000, UTC)
        scheduler.add_job("bench.peers.apscheduler_program:post", "date", run_date=at, args=[name], id=name)
    print(json.dumps({"create_per_second": len(due) / (time.perf_counter() - began)}), flush=True)
    scheduler.resume()
    await asyncio.Event().wait()


def main() -> None:
    """Run it."""
    uri, path, target = sys.argv[1:]
    uvloop.run(run(uri, json.loads(Path(path).read_text()), target))
