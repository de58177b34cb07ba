"""What is relied on of aiohttp below its session: how answers are framed, and which connections are used again."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.executor.adapters.http.guarded_connector import GuardedConnector
from services.executor.adapters.http.target_caller import HttpTargetCaller
from services.executor.domain.attempt import Header
from services.executor.domain.report import CallProgress, CallResult, Result
from tests.integration.executor.targets import RawHandler, Servers, make_grant, open_caller
from tests.support.certificates import Authority

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
READ_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-Trailer: t\r\n\r\n"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


class Speaker:
    """Answers each request on a connection with the next of some texts, then with OK, and counts the connections."""

    def __init__(self, *answers: bytes, hang_up_after: int = 1_000_000) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._answers = list(answers)
        self._hang_up_after = hang_up_after

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self._hang_up_after):
            try:
                self.requests.append(await read_request(reader))
            except asyncio.IncompleteReadError:
                return
            writer.write(self._answers.pop(0) if self._answers else OK)
            await writer.drain()


async def call(caller: HttpTargetCaller, url: str) -> CallResult:
    return await caller.call(make_grant(url), CallProgress())


def stored(result: CallResult) -> bytes:
    assert result.answer is not None
    return result.answer.body


async def test_the_head_is_sent_as_it_always_was(caller: HttpTargetCaller, servers: Servers) -> None:
    speaker = Speaker()
    url = await servers.raw(speaker)
    headers = [Header("X-Mine", "yes"), Header("Authorization", "Bearer key")]
    grant = make_grant(url + "v1/a%20b?q=ä#", headers=headers, secrets=[b"s" * 32])
    await caller.call(grant, CallProgress())
    head, _, body = speaker.requests[0].partition(b"\r\n\r\n")
    request_line, *lines = head.decode().split("\r\n")
    assert request_line == "POST /v1/a%20b?q=%C3%A4 HTTP/1.1"
    assert [line.split(": ")[0] for line in lines] == [
        "Host",
        "X-Mine",
        "User-Agent",
        "Accept",
        "Accept-Encoding",
        "Content-Type",
        "Idempotency-Key",
        "Punctual-Attempt",
        "Punctual-Fire-Time",
        "Punctual-Deadline",
        "Authorization",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "Content-Length",
    ]
    assert f"Host: {url.removeprefix('http://').removesuffix('/')}" in lines
    assert "Accept: */*" in lines
    assert f"Content-Length: {len(body)}" in lines
    assert body == grant.request.body


async def test_a_body_may_be_empty(caller: HttpTargetCaller, servers: Servers) -> None:
    speaker = Speaker()
    await caller.call(make_grant(await servers.raw(speaker), body=b""), CallProgress())
    assert b"\r\nContent-Length: 0\r\n\r\n" in speaker.requests[0]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, b"ok"),
        (READ_CHUNKED, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
    ids=["100", "100 and 103", "chunked", "204", "empty", "1.0 kept"],
)
async def test_after_an_answer_that_ends_by_itself_the_connection_is_used_again(
    caller: HttpTargetCaller, servers: Servers, answer: bytes, body: bytes
) -> None:
    speaker = Speaker(answer)
    url = await servers.raw(speaker)
    result = await call(caller, url)
    assert (result.result, stored(result)) == (Result.ANSWERED, body)
    assert stored(await call(caller, url)) == b"ok"
    assert speaker.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nanother",
    ],
    ids=["close", "1.0", "an answer nobody asked for"],
)
async def test_after_any_other_one_it_is_not(caller: HttpTargetCaller, servers: Servers, answer: bytes) -> None:
    speaker = Speaker(answer)
    url = await servers.raw(speaker)
    assert stored(await call(caller, url)) == b"ok"
    assert stored(await call(caller, url)) == b"ok"
    assert speaker.connections == 2


async def test_an_answer_without_a_length_ends_with_its_connection(caller: HttpTargetCaller, servers: Servers) -> None:
    speaker = Speaker(b"HTTP/1.1 200 OK\r\n\r\nall of it", hang_up_after=1)
    result = await call(caller, await servers.raw(speaker))
    assert (result.result, stored(result)) == (Result.ANSWERED, b"all of it")


async def test_a_target_that_changes_the_protocol_is_hung_up_on(caller: HttpTargetCaller, servers: Servers) -> None:
    speaker = Speaker(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    url = await servers.raw(speaker)
    result = await call(caller, url)
    assert (result.result, result.status_code) == (Result.ANSWERED, 101)
    assert (await call(caller, url)).status_code == 200
    assert speaker.connections == 2


async def test_no_answer_but_1xx_runs_into_the_first_byte_timeout(caller: HttpTargetCaller, servers: Servers) -> None:
    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    grant = make_grant(await servers.raw(patient), first_byte=0.2)
    result = await caller.call(grant, CallProgress())
    assert (result.result, result.error_reason) == (Result.TIMED_OUT, "FIRST_BYTE_TIMED_OUT")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 9_000 + b"\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 " + b"y" * 9_000 + b"\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"Content-Length: 2\r\n\r\nok",
        OK + b"and more than was announced",
    ],
    ids=[
        "lengths",
        "no length",
        "framings",
        "no status",
        "no header",
        "long line",
        "long status",
        "many lines",
        "more",
    ],
)
async def test_a_head_that_could_be_read_in_two_ways_or_has_no_bounds_is_none(
    caller: HttpTargetCaller, servers: Servers, head: bytes
) -> None:
    progress = CallProgress()
    result = await caller.call(make_grant(await servers.raw(Speaker(head))), progress)
    assert (result.result, result.error_reason) == (Result.NO_ANSWER, "BAD_ANSWER")
    assert progress.may_be_sent


async def test_heads_as_large_as_they_may_be_stay_within_bounds(caller: HttpTargetCaller, servers: Servers) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 30_000) for number in range(120))

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        # Never written to its end, or the target's own memory would count.
        writer.transport.set_write_buffer_limits(0)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for start in range(0, len(lines), 7_500):
            writer.write(lines[start : start + 7_500])
            await writer.drain()
        await asyncio.sleep(60)

    url = await servers.raw(speak)
    tracemalloc.start()
    try:
        calls = [caller.call(make_grant(url, first_byte=1.0), CallProgress()) for _ in range(10)]
        await asyncio.gather(*calls)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 3 * 1024 * 1024


async def test_a_broken_chunk_breaks_the_answer_off(caller: HttpTargetCaller, servers: Servers) -> None:
    speaker = Speaker(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nXX\r\n")
    result = await call(caller, await servers.raw(speaker))
    assert result.result is Result.NO_ANSWER
    assert result.error_reason in {"ANSWER_BROKEN_OFF", "BAD_ANSWER"}


async def test_an_answer_before_all_of_the_request_counts_and_ends_the_connection(
    caller: HttpTargetCaller, servers: Servers
) -> None:
    connections = 0

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(60)

    url = await servers.raw(hasty)
    for count in (1, 2):
        result = await caller.call(make_grant(url, body=b"x" * 20_000_000), CallProgress())
        assert (result.result, result.status_code) == (Result.ANSWERED, 413)
        assert connections == count


def hanging_up(at: Callable[[asyncio.StreamWriter], None]) -> RawHandler:
    """Answer one request, and end the connection in a certain way while it is pooled."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.02)
        at(writer)

    return handle


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_a_pooled_connection_that_the_target_ended_is_not_used(
    caller: HttpTargetCaller, servers: Servers, way: str
) -> None:
    def end(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort() if way == "abort" else writer.close()

    url = await servers.raw(hanging_up(end))
    assert (await call(caller, url)).result is Result.ANSWERED
    await asyncio.sleep(0.1)
    assert (await call(caller, url)).result is Result.ANSWERED


class Chatterbox:
    """Answers a request, and on its first connection says something more when it is told to."""

    def __init__(self) -> None:
        self.connections = 0
        self.speak = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        first = self.connections == 1
        while True:
            await read_request(reader)
            writer.write(OK)
            if first:
                await self.speak.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nanother")


async def test_what_a_target_says_unasked_on_a_pooled_connection_is_no_answer(
    caller: HttpTargetCaller, servers: Servers
) -> None:
    target = Chatterbox()
    url = await servers.raw(target)
    assert stored(await call(caller, url)) == b"ok"
    target.speak.set()
    await asyncio.sleep(0.05)
    assert stored(await call(caller, url)) == b"ok"
    assert target.connections == 2


async def test_nor_is_what_it_says_while_the_connection_is_held_for_the_instant(
    caller: HttpTargetCaller, servers: Servers
) -> None:
    target = Chatterbox()
    url = await servers.raw(target)
    assert stored(await call(caller, url)) == b"ok"

    async def release() -> bool:
        target.speak.set()
        await asyncio.sleep(0.05)
        return True

    assert stored(await caller.call(make_grant(url), CallProgress(), release)) == b"ok"
    assert target.connections == 2


async def test_a_new_connection_on_which_the_target_speaks_first_is_used_once(
    caller: HttpTargetCaller, servers: Servers
) -> None:
    connections = 0

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(60)

    url = await servers.raw(busy)

    async def release() -> bool:
        await asyncio.sleep(0.05)
        return True

    for count in (1, 2):
        result = await caller.call(make_grant(url), CallProgress(), release)
        assert (result.status_code, connections) == (503, count)


async def test_a_connection_that_still_holds_some_of_the_request_is_not_used_again(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = 0

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(60)

    open_socket = GuardedConnector._open_socket

    def narrow(connector: GuardedConnector, info: tuple[Any, ...]) -> socket.socket:
        opened = open_socket(connector, info)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        return opened

    monkeypatch.setattr(GuardedConnector, "_open_socket", narrow)
    # Less than a transport may hold without a word.
    grant = make_grant(await servers.raw(hasty, receive_buffer=4_096), body=b"x" * 60_000, first_byte=1.0)
    async with open_caller("127.0.0.0/8") as caller:
        for count in (1, 2):
            result = await caller.call(grant, CallProgress())
            assert (result.result, result.status_code, connections) == (Result.ANSWERED, 413, count)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"], ids=["none", "early"])
async def test_a_target_that_does_not_read_keeps_no_connection_open(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    async def unreading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        writer.write(answer)
        await asyncio.sleep(60)

    open_socket, opened = GuardedConnector._open_socket, []

    def noted(connector: GuardedConnector, info: tuple[Any, ...]) -> socket.socket:
        opened.append(open_socket(connector, info))
        return opened[-1]

    monkeypatch.setattr(GuardedConnector, "_open_socket", noted)
    grant = make_grant(await servers.raw(unreading), body=b"x" * 20_000_000, first_byte=0.3)
    async with open_caller("127.0.0.0/8") as caller:
        result = await caller.call(grant, CallProgress())
        await asyncio.sleep(0.1)
        assert result.status_code == (413 if answer else 0)
        assert [one.fileno() for one in opened] == [-1]


@pytest.mark.parametrize("whole", [True, False])
async def test_an_answer_that_ends_with_its_connection_is_whole_if_that_was_closed_and_not_reset(
    caller: HttpTargetCaller, servers: Servers, *, whole: bool
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nsome of it")
        await writer.drain()
        await asyncio.sleep(0.05)
        if not whole:
            at_once = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

    result = await call(caller, await servers.raw(speak))
    expected = (Result.ANSWERED, "") if whole else (Result.NO_ANSWER, "ANSWER_BROKEN_OFF")
    assert (result.result, result.error_reason) == expected


async def test_a_host_that_cannot_be_encoded_is_a_bad_address(caller: HttpTargetCaller, servers: Servers) -> None:
    unusable = "http://" + "\u00e4" * 70 + ".example/"
    result = await call(caller, unusable)
    assert (result.result, result.error_reason) == (Result.NOT_SENT, "BAD_URL")


async def test_a_connection_that_is_not_to_be_kept_is_closed(servers: Servers) -> None:
    ended = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        assert await reader.read() == b""
        ended.set()

    async with open_caller("127.0.0.0/8", keepalive=0) as caller:
        assert stored(await call(caller, await servers.raw(speak))) == b"ok"
        await asyncio.wait_for(ended.wait(), 2)


@pytest.mark.parametrize("trusted", [True, False])
async def test_over_tls_the_same_connection_serves_again_and_a_stranger_gets_nothing(
    servers: Servers, tmp_path: Path, *, trusted: bool
) -> None:
    authority, speaker = Authority(), Speaker()
    files = authority.issue().write(tmp_path / "target")
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(files.certificate, files.key)
    here = ssl.create_default_context(cadata=(authority if trusted else Authority()).certificate.decode())
    url = await servers.raw(speaker, there)
    async with open_caller("127.0.0.0/8", tls=here) as caller:
        results = [await call(caller, url) for _ in range(2)]
    if trusted:
        assert [stored(result) for result in results] == [b"ok", b"ok"]
        assert speaker.connections == 1
    else:
        assert {(result.result, result.error_reason) for result in results} == {(Result.NOT_SENT, "TLS_FAILED")}
        assert speaker.requests == []


async def test_a_cancelled_call_takes_its_connection_with_it(caller: HttpTargetCaller, servers: Servers) -> None:
    asked = asyncio.Event()
    connections = 0

    async def slow_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        asked.set()
        await asyncio.sleep(60 if connections == 1 else 0)
        writer.write(OK)
        await writer.drain()

    url = await servers.raw(slow_at_first)
    task = asyncio.create_task(call(caller, url))
    await asked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stored(await call(caller, url)) == b"ok"
    assert connections == 2
