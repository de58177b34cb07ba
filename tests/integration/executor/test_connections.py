"""How many connections an executor has to one target, with the settings that it comes with."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

from libs.common.clock import SystemClock
from services.executor.app import open_target_caller
from services.executor.domain.report import CallProgress, Result
from services.executor.settings import ExecutorSettings
from tests.integration.executor.targets import Servers, make_grant
from tests.integration.executor.test_target_wire import OK, read_request


async def test_long_calls_of_some_orgs_leave_a_connection_to_the_same_host_for_another(servers: Servers) -> None:
    settings = ExecutorSettings.model_validate({"allowed_targets": "127.0.0.0/8"})
    others, open_calls = settings.executor_concurrency - 1, 0
    over = asyncio.Event()

    async def long_call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_calls
        await read_request(reader)
        open_calls += 1
        if open_calls <= others:
            await over.wait()
        writer.write(OK)
        await writer.drain()

    url = await servers.raw(long_call)
    async with AsyncExitStack() as edges:
        caller = open_target_caller(settings, SystemClock(), edges)
        calls = [
            asyncio.create_task(
                caller.call(replace(make_grant(url, total=30, first_byte=30), org_id=org), CallProgress())
            )
            for org in ("a", "b")
            for _ in range(others // 2 + 1)
        ][:others]
        async with asyncio.timeout(10):
            while open_calls < others:
                await asyncio.sleep(0.01)
        result = await caller.call(replace(make_grant(url, connect=0.5), org_id="c"), CallProgress())
        assert (result.result, result.error_reason) == (Result.ANSWERED, "")
        over.set()
        assert {call.result for call in await asyncio.gather(*calls)} == {Result.ANSWERED}
