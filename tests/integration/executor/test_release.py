"""A call gets ready ahead of its instant, and nothing of its request leaves before it (promise P4)."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from aiohttp import web

from services.executor.adapters.http.target_caller import HttpTargetCaller
from services.executor.domain.report import CallProgress, Result
from tests.integration.executor.targets import Servers, make_grant

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Gate:
    """Lets a request leave when a test opens it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._open = asyncio.Event()

    async def release(self) -> bool:
        self.reached.set()
        await self._open.wait()
        return True

    def open(self) -> None:
        self._open.set()


async def test_the_connection_stands_before_the_request_may_leave(servers: Servers, caller: HttpTargetCaller) -> None:
    connected, seen = asyncio.Event(), asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.readuntil(b"\r\n\r\n")
        seen.set()
        writer.write(ANSWER)
        await writer.drain()

    gate, progress = Gate(), CallProgress()
    call = asyncio.create_task(caller.call(make_grant(await servers.raw(speak)), progress, gate.release))
    await asyncio.gather(connected.wait(), gate.reached.wait())
    await asyncio.sleep(0.05)
    assert not seen.is_set()
    assert not progress.may_be_sent
    gate.open()
    assert (await call).result is Result.ANSWERED
    assert progress.may_be_sent


async def test_a_call_cut_short_before_its_instant_sent_nothing(servers: Servers, caller: HttpTargetCaller) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    target, gate, progress = await servers.http(answer), Gate(), CallProgress()
    call = asyncio.create_task(caller.call(make_grant(target.url), progress, gate.release))
    await gate.reached.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert call.cancelled()
    assert not progress.may_be_sent
    assert (await caller.call(make_grant(target.url), CallProgress())).result is Result.ANSWERED
    assert len(target.requests) == 1


async def test_a_connection_that_the_target_closed_meanwhile_is_replaced(
    servers: Servers, caller: HttpTargetCaller
) -> None:
    connections = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            return
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()

    gate = Gate()
    call = asyncio.create_task(caller.call(make_grant(await servers.raw(speak)), CallProgress(), gate.release))
    await gate.reached.wait()
    await asyncio.sleep(0.1)
    gate.open()
    assert (await call).result is Result.ANSWERED
    assert connections == 2


async def test_timeouts_count_from_the_instant(servers: Servers, caller: HttpTargetCaller) -> None:
    async def stall(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    target, gate = await servers.http(stall), Gate()
    grant = make_grant(target.url, total=0.6, first_byte=5.0)
    call = asyncio.create_task(caller.call(grant, CallProgress(), gate.release))
    await gate.reached.wait()
    await asyncio.sleep(0.3)
    gate.open()
    began = time.monotonic()
    result = await call
    assert result.result is Result.TIMED_OUT
    assert time.monotonic() - began >= 0.5


async def test_what_is_signed_ahead_bears_the_due_time(servers: Servers, caller: HttpTargetCaller) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    target, due = await servers.http(answer), datetime.now(UTC) + timedelta(seconds=30)
    await caller.call(make_grant(target.url, secrets=[b"s" * 32], due=due), CallProgress())
    assert target.requests[0][0].headers["webhook-timestamp"] == str(int(due.timestamp()))
