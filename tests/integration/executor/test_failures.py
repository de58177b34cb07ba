"""How a call fails, and how sure it is that nothing was sent."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import replace

import pytest
from aiohttp import web

from services.executor.adapters.http.target_caller import HttpTargetCaller
from services.executor.domain.report import CallProgress, Result
from tests.integration.executor.targets import Servers, make_grant, open_caller


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_a_refused_connection_is_certainly_not_sent(caller: HttpTargetCaller) -> None:
    progress = CallProgress()
    result = await caller.call(make_grant(f"http://127.0.0.1:{closed_port()}/"), progress)
    assert (result.result, result.error_reason) == (Result.NOT_SENT, "CONNECT_FAILED")
    assert not progress.may_be_sent


async def test_a_name_without_address_is_a_dns_failure() -> None:
    async def nothing(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    async with open_caller(lookup=nothing) as caller:
        result = await caller.call(make_grant("http://nowhere.example/"), CallProgress())
    assert (result.result, result.error_reason) == (Result.NOT_SENT, "DNS_FAILED")


async def test_a_slow_look_up_counts_as_connecting() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    async with open_caller(lookup=never) as caller:
        result = await caller.call(make_grant("http://slow.example/", connect=0.1), CallProgress())
    assert (result.result, result.error_reason) == (Result.CONNECT_TIMED_OUT, "CONNECT_TIMED_OUT")


async def test_slow_look_ups_of_one_org_hold_up_no_other(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def look_up(host: str, port: int) -> list[tuple[object, ...]]:
        if host.startswith("slow"):
            over.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response()

    monkeypatch.setattr("services.executor.adapters.http.guarded_connector._getaddrinfo", look_up)
    target = await servers.http(answer)
    port = target.url.rstrip("/").rpartition(":")[2]
    async with open_caller("127.0.0.0/8") as caller:
        slow = [caller.call(make_grant(f"http://slow-{n}.example/", connect=0.3), CallProgress()) for n in range(100)]
        await asyncio.gather(*slow)
        grant = replace(make_grant(f"http://fast.example:{port}/"), org_id="another")
        result = await caller.call(grant, CallProgress())
        over.set()
    assert (result.result, result.status_code) == (Result.ANSWERED, 200)


async def test_plain_http_behind_an_https_address_is_a_tls_failure(caller: HttpTargetCaller, servers: Servers) -> None:
    async def not_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    url = (await servers.raw(not_tls)).replace("http:", "https:")
    progress = CallProgress()
    result = await caller.call(make_grant(url), progress)
    assert (result.result, result.error_reason) == (Result.NOT_SENT, "TLS_FAILED")
    assert not progress.may_be_sent


async def test_a_target_that_hangs_up_may_have_had_the_request(caller: HttpTargetCaller, servers: Servers) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    progress = CallProgress()
    result = await caller.call(make_grant(await servers.raw(hang_up)), progress)
    assert (result.result, result.error_reason) == (Result.NO_ANSWER, "CONNECTION_LOST")
    assert progress.may_be_sent


async def test_after_a_redirect_the_request_was_sent_whatever_becomes_of_the_next_hop(servers: Servers) -> None:
    async def lookup(host: str, port: int) -> list[str]:
        if host == "slow.example":
            await asyncio.sleep(60)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    locations = ["http://nowhere.example/", f"http://127.0.0.1:{closed_port()}/", "http://slow.example/"]

    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": locations.pop(0)})

    target = await servers.http(redirect)
    async with open_caller("127.0.0.0/8", lookup=lookup) as caller:
        results = [await caller.call(make_grant(target.url, connect=0.2), CallProgress()) for _ in range(3)]
    assert [(result.result, result.error_reason) for result in results] == [
        (Result.NO_ANSWER, "DNS_FAILED"),
        (Result.NO_ANSWER, "CONNECT_FAILED"),
        (Result.TIMED_OUT, "CONNECT_TIMED_OUT"),
    ]


async def test_a_stale_pooled_connection_may_have_had_the_request(caller: HttpTargetCaller, servers: Servers) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        await read_request(reader)

    url = await servers.raw(once)
    assert (await caller.call(make_grant(url), CallProgress())).result is Result.ANSWERED
    assert (await caller.call(make_grant(url), CallProgress())).result is Result.NO_ANSWER


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "BAD_ANSWER"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", "BAD_ANSWER"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_048_576 + b"\r\n\r\n", "BAD_ANSWER"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "ANSWER_BROKEN_OFF"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", "ANSWER_BROKEN_OFF"),
    ],
    ids=["not http", "10,000 headers", "1 MiB header", "short body", "unfinished chunks"],
)
async def test_an_answer_that_is_none(caller: HttpTargetCaller, servers: Servers, answer: bytes, reason: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    result = await caller.call(make_grant(await servers.raw(speak)), CallProgress())
    assert (result.result, result.error_reason) == (Result.NO_ANSWER, reason)


async def test_a_silent_target_runs_into_the_first_byte_timeout(caller: HttpTargetCaller, servers: Servers) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    target = await servers.http(silent)
    began = time.monotonic()
    result = await caller.call(make_grant(target.url, first_byte=0.15), CallProgress())
    assert (result.result, result.error_reason) == (Result.TIMED_OUT, "FIRST_BYTE_TIMED_OUT")
    assert time.monotonic() - began < 1


async def test_an_answer_that_trickles_cannot_outlive_the_total_timeout(
    caller: HttpTargetCaller, servers: Servers
) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    url = await servers.raw(trickle)
    began = time.monotonic()
    results = await asyncio.gather(
        *(caller.call(make_grant(url, total=0.4, first_byte=0.2), CallProgress()) for _ in range(50))
    )
    assert {(result.result, result.error_reason) for result in results} == {(Result.TIMED_OUT, "TOTAL_TIMED_OUT")}
    assert 0.4 <= time.monotonic() - began < 2


async def test_a_cancelled_call_leaves_what_is_certain(caller: HttpTargetCaller, servers: Servers) -> None:
    arrived = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await asyncio.sleep(60)
        return web.Response()

    target = await servers.http(silent)
    progress = CallProgress()
    task = asyncio.create_task(caller.call(make_grant(target.url), progress))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert progress.may_be_sent
