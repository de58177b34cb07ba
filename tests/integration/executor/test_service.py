"""The whole service over a real stream, real gRPC and real HTTP: on the dot, once, acknowledged, drained."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from punctual.internal.v1.stream_entry_pb2 import StreamEntry

from libs.common.rpc.timestamps import to_timestamp
from libs.common.streams.connection import open_redis
from libs.common.streams.due_stream import DueStream
from services.executor.adapters.due_alarm import LoopAlarm, make_alarm
from services.executor.adapters.proto_time import instant_of
from services.executor.app import serve
from services.executor.settings import ExecutorSettings
from tests.integration.executor.fake_scheduler import FakeScheduler, grant_message, serving
from tests.integration.executor.targets import Servers

COUNT = 60


async def test_delivered_executions_are_posted_on_the_dot_once(
    servers: Servers, redis_url: str, redis_prefix: str
) -> None:
    arrivals: dict[str, list[datetime]] = {}

    async def answer(request: web.Request) -> web.StreamResponse:
        arrivals.setdefault(request.headers["Idempotency-Key"], []).append(datetime.now(UTC))
        return web.json_response({"a": 1})

    target, scheduler, stopping = await servers.http(answer), FakeScheduler(), asyncio.Event()
    stream = DueStream(open_redis(redis_url), key_prefix=redis_prefix)
    async with serving(scheduler) as address:
        settings = ExecutorSettings.model_validate(
            {
                "scheduler_internal_address": address,
                "redis_url": redis_url,
                "redis_key_prefix": redis_prefix,
                "executor_health_address": "127.0.0.1:0",
                "metrics_address": "",
                "allowed_targets": "127.0.0.1",
                "drain_seconds": 5,
            }
        )
        service = asyncio.create_task(serve(settings, stopping))
        due = {f"e{n}": datetime.now(UTC) + timedelta(seconds=0.4 + n * 0.01) for n in range(COUNT)}
        due["later"] = datetime.now(UTC) + timedelta(seconds=60)
        scheduler.ready = {name: grant_message(name, target.url, instant) for name, instant in due.items()}
        # The sixty others use up the job's requests of this minute.
        scheduler.ready["later"].job_id = "another job"
        entries = [(0, StreamEntry(execution_id=name, due_time=to_timestamp(instant))) for name, instant in due.items()]
        await stream.add([*entries, entries[0]])
        async with asyncio.timeout(10):
            while len(scheduler.reports) < COUNT:
                await asyncio.sleep(0.02)
        stopping.set()
        await asyncio.wait_for(service, 5)
    assert await stream.backlog(0) == 0
    del due["later"]
    assert scheduler.reports.pop("later").result == 7
    assert {name: len(times) for name, times in arrivals.items()} == dict.fromkeys(due, 1)
    assert all(arrivals[name][0] >= instant for name, instant in due.items())
    assert all(instant_of(scheduler.reports[name].start_time) >= instant for name, instant in due.items())
    assert {(report.result, report.status_code) for report in scheduler.reports.values()} == {(1, 200)}
    lags = sorted(arrivals[name][0] - instant for name, instant in due.items())
    assert lags[COUNT // 2] < timedelta(milliseconds=50)
    await stream.close()


async def test_an_executor_without_scheduler_or_redis_starts_and_stops() -> None:
    stopping = asyncio.Event()
    settings = ExecutorSettings.model_validate(
        {
            "scheduler_internal_address": "127.0.0.1:1",
            "redis_url": "redis://127.0.0.1:1/0",
            "executor_health_address": "127.0.0.1:0",
            "metrics_address": "",
            "drain_seconds": 5,
        }
    )
    service = asyncio.create_task(serve(settings, stopping))
    await asyncio.sleep(0.3)
    assert not service.done()
    stopping.set()
    await asyncio.wait_for(service, 5)


@pytest.mark.parametrize("kind", ["kernel", "loop"])
async def test_an_alarm_rings_close_to_its_instant(kind: str) -> None:
    loop = asyncio.get_running_loop()
    rung = asyncio.Event()
    alarm = make_alarm(rung.set) if kind == "kernel" else LoopAlarm(loop, rung.set)
    alarm.set(60)
    alarm.set(0.02)
    began = loop.time()
    await asyncio.wait_for(rung.wait(), 1)
    assert 0.019 <= loop.time() - began < 0.2
    rung.clear()
    alarm.set(0.01)
    alarm.cancel()
    await asyncio.sleep(0.03)
    assert not rung.is_set()
