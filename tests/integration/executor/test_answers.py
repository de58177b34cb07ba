"""What is kept of an answer: bounded, byte for byte, masked, checked."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import random
import tracemalloc

import pytest
import zstandard
from aiohttp import web

from services.executor.adapters.attempt_messages import reports_request
from services.executor.adapters.http.answer_body import NoRoomError
from services.executor.adapters.http.target_caller import HttpTargetCaller
from services.executor.domain.answer import Answer
from services.executor.domain.attempt import (
    Header,
    JsonPathEquals,
    JsonPathExists,
    Lease,
    MinSize,
    ResponseCheck,
)
from services.executor.domain.report import CallProgress, CallResult, Report, ReportedResponse, Result
from tests.integration.executor.targets import Handler, Servers, make_grant

MIB = 1024 * 1024


def answering(body: bytes, status: int = 200, **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def kept(result: CallResult) -> bytes:
    """Return the answer's kept bytes as a reader gets them."""
    answer = result.answer
    assert answer is not None
    stored = b"".join(answer.source.chunks()) if answer.source else answer.body
    data = zstandard.ZstdDecompressor().decompressobj().decompress(stored) if answer.encoding == "zstd" else stored
    assert len(data) == answer.stored_size_bytes
    assert hashlib.sha256(data).digest() == answer.sha256
    return data


def answer_of(result: CallResult) -> Answer:
    assert result.result is Result.ANSWERED
    assert result.answer is not None
    return result.answer


@pytest.mark.parametrize(
    ("body", "encoding", "inline"),
    [
        (b"", "", True),
        (b"short", "", True),
        (bytes(range(256)) * 4, "", True),
        (b"compressible " * 10_000, "zstd", True),
        (b"compressible " * 100_000, "zstd", True),
        (random.Random(1).randbytes(2_000), "", True),
        (random.Random(1).randbytes(200_000), "", False),
        (random.Random(1).randbytes(2 * MIB), "", False),
        (random.Random(1).randbytes(MIB) + b"\x00" * MIB, "zstd", False),
    ],
    ids=["empty", "short", "binary", "text", "long text", "noise", "more noise", "much noise", "mixed"],
)
async def test_an_answer_survives_byte_for_byte(
    caller: HttpTargetCaller, servers: Servers, body: bytes, encoding: str, inline: bool
) -> None:
    target = await servers.http(answering(body, Content_Type="application/x-thing"))
    result = await caller.call(make_grant(target.url), CallProgress())
    answer = answer_of(result)
    assert kept(result) == body
    assert (answer.encoding, answer.source is None) == (encoding, inline)
    assert (answer.truncated, answer.total_size_bytes) == (False, len(body))
    assert answer.content_type == "application/x-thing"
    assert answer.head == (b"" if inline else body[:4096])
    if answer.source:
        answer.source.close()


@pytest.mark.parametrize("size", [9_999, 10_000, 10_001, 300_000])
async def test_a_long_answer_is_cut_at_the_cap_and_flagged(
    caller: HttpTargetCaller, servers: Servers, size: int
) -> None:
    target = await servers.http(answering(b"a" * size))
    result = await caller.call(make_grant(target.url, max_size=10_000), CallProgress())
    answer = answer_of(result)
    assert kept(result) == b"a" * min(size, 10_000)
    assert (answer.truncated, answer.total_size_bytes) == (size > 10_000, size)
    assert bool(answer.warning) is answer.truncated


async def test_an_endless_answer_ends_at_the_cap(caller: HttpTargetCaller, servers: Servers) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"z" * 65_536)
            sent += 65_536

    target = await servers.http(endless)
    result = await caller.call(make_grant(target.url, max_size=MIB), CallProgress())
    answer = answer_of(result)
    assert (answer.stored_size_bytes, answer.truncated, answer.total_size_bytes) == (MIB, True, -1)
    assert len(kept(result)) == MIB
    await asyncio.sleep(0.05)
    assert sent < 32 * MIB


async def test_a_bomb_is_stored_as_it_came(caller: HttpTargetCaller, servers: Servers) -> None:
    bomb = gzip.compress(b"\x00" * (64 * MIB), mtime=0)
    target = await servers.http(answering(bomb, Content_Encoding="gzip"))
    tracemalloc.start()
    try:
        result = await caller.call(make_grant(target.url), CallProgress())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert kept(result) == bomb
    assert peak < 4 * MIB


async def test_many_large_answers_stay_out_of_memory(caller: HttpTargetCaller, servers: Servers) -> None:
    piece = random.Random(2).randbytes(MIB)

    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(5):
            await response.write(piece)
        return response

    target = await servers.http(large)
    tracemalloc.start()
    try:
        results = await asyncio.gather(
            *(caller.call(make_grant(target.url, max_size=4 * MIB), CallProgress()) for _ in range(20))
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all(answer_of(result).truncated for result in results)
    assert peak < 40 * MIB  # 20 x 4 MiB are kept, and the server of this test holds its own buffers
    for result in results:
        source = answer_of(result).source
        assert source is not None
        source.close()


async def test_a_full_disk_here_is_no_fault_of_the_target(
    caller: HttpTargetCaller, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("services.executor.adapters.http.answer_body.tempfile.TemporaryFile", full)
    target = await servers.http(answering(b"a" * MIB))
    with pytest.raises(NoRoomError):
        await caller.call(make_grant(target.url), CallProgress())


async def test_an_answer_that_is_not_to_be_stored_keeps_its_beginning(
    caller: HttpTargetCaller, servers: Servers
) -> None:
    target = await servers.http(answering(b"b" * 5_000))
    result = await caller.call(make_grant(target.url, store_full=False), CallProgress())
    answer = answer_of(result)
    assert kept(result) == b"b" * 1_024
    assert (answer.truncated, answer.total_size_bytes) == (True, 5_000)


async def test_echoed_secrets_are_masked(caller: HttpTargetCaller, servers: Servers) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        token = request.headers["Authorization"]
        response = web.StreamResponse(headers={"X-Echo": token, "Set-Cookie": "a=b"})
        await response.prepare(request)
        for letter in f"you said {token}.":
            await response.write(letter.encode())
        return response

    target = await servers.http(echo)
    grant = make_grant(target.url, headers=[Header("Authorization", "Bearer sk-0123456789abcdef")])
    result = await caller.call(grant, CallProgress())
    answer = answer_of(result)
    headers = {header.name: header for header in answer.headers}
    assert kept(result) == b"you said " + b"*" * 26 + b"."
    assert headers["X-Echo"].value == "*" * 26
    assert headers["Set-Cookie"].sensitive


@pytest.mark.parametrize("pieces", [1, 1_100], ids=["at once", "by letters"])
async def test_nor_is_the_beginning_of_a_secret_kept_where_an_answer_is_cut(
    caller: HttpTargetCaller, servers: Servers, pieces: int
) -> None:
    token = "sk-0123456789abcdef"
    text = b"x" * 985 + token.encode() + b"y" * 96

    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(text), len(text) // pieces):
            await response.write(text[start : start + len(text) // pieces])
            await asyncio.sleep(0)
        return response

    target = await servers.http(echo)
    grant = make_grant(target.url, headers=[Header("X-Api-Key", token)], max_size=1_000)
    result = await caller.call(grant, CallProgress())
    assert kept(result) == b"x" * 985 + b"*" * 15
    assert answer_of(result).truncated


async def test_headers_that_are_no_text_can_be_reported(caller: HttpTargetCaller, servers: Servers) -> None:
    async def latin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/caf\xe9\r\nX-Name: caf\xe9 \xc3\xa9\r\nContent-Length: 0\r\n\r\n"
        )
        await writer.drain()

    result = await caller.call(make_grant(await servers.raw(latin), body=b""), CallProgress())
    answer = answer_of(result)
    response = ReportedResponse(answer.headers, answer.content_type, b"", "", 0, 0, truncated=False, sha256=b"")
    request = await reports_request("executor-1", [Report(Lease("e1", 1), Result.ANSWERED, response=response)])
    assert request.reports[0].response.content_type == "text/caf\ufffd"
    assert [line.value for line in request.reports[0].response.headers][1] == "caf\ufffd é"


async def test_headers_are_kept_within_bounds(caller: HttpTargetCaller, servers: Servers) -> None:
    target = await servers.http(answering(b"", **{f"X_{n}": "v" for n in range(110)}))
    answer = answer_of(await caller.call(make_grant(target.url), CallProgress()))
    assert len(answer.headers) == 100


@pytest.mark.parametrize(
    ("checks", "body", "reason"),
    [
        ([JsonPathExists("$.choices[0].message")], b'{"choices":[{"message":"hi"}]}', ""),
        ([JsonPathExists("$.choices[0].message")], b'{"choices":[]}', "CHECK_FAILED"),
        ([JsonPathExists("$.a")], b'{"a":null}', ""),
        ([JsonPathExists("$.a")], b"not json", "CHECK_FAILED"),
        ([JsonPathExists("$.a")], b"\xff\xfe\x00", "CHECK_FAILED"),
        ([JsonPathExists("$.a")], b"[" * 200_000, "CHECK_FAILED"),
        ([JsonPathExists("$..a..b..c")], b"{}", "CHECK_FAILED"),
        ([JsonPathExists("$[?match(@.a, '(a+)+b')]")], b"[]", "CHECK_FAILED"),
        ([JsonPathExists("$[")], b"[]", "CHECK_FAILED"),
        ([JsonPathEquals("$.status", '"ok"')], b'{"status":"ok"}', ""),
        ([JsonPathEquals("$.status", '"ok"')], b'{"status":"error"}', "CHECK_FAILED"),
        ([JsonPathEquals("$.n", "1")], b'{"n":true}', "CHECK_FAILED"),
        ([JsonPathEquals("$.n", "1")], b'{"n":1.0}', ""),
        ([JsonPathEquals("$.n", "{broken")], b'{"n":1}', "CHECK_FAILED"),
        ([MinSize(3)], b"abc", ""),
        ([MinSize(4)], b"abc", "CHECK_FAILED"),
        ([MinSize(1), JsonPathExists("$.a")], b'{"a":' + b" " * 100_000 + b"1}", ""),
    ],
)
async def test_checks_on_an_answer_that_succeeds(
    caller: HttpTargetCaller, servers: Servers, checks: list[ResponseCheck], body: bytes, reason: str
) -> None:
    target = await servers.http(answering(body))
    result = await caller.call(make_grant(target.url, checks=checks), CallProgress())
    assert (result.result, result.status_code, result.error_reason) == (Result.ANSWERED, 200, reason)
    assert bool(result.error_message) is bool(reason)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("$" + "[0,0]" * 40 + ".x", b"[" * 60 + b"]" * 60),
        ("$[?$[?@==1]]", b"[" + b"0," * 2_000 + b"0]"),
        ("$[?@[?@==1]]", b"[" + b"0," * 2_000 + b"0]"),
        ("$[?count($..*) > 9999]", b"[" + b"0," * 2_000 + b"0]"),
        ("$[?" + "||".join(["@.a"] * 40) + "]", b"[]"),
        ("$..a..b", b"{}"),
    ],
    ids=["selectors", "the whole in a filter", "a filter in a filter", "a count in a filter", "terms", "descents"],
)
async def test_a_path_that_multiplies_the_work_is_not_evaluated(
    caller: HttpTargetCaller, servers: Servers, path: str, body: bytes
) -> None:
    target = await servers.http(answering(body))
    result = await caller.call(make_grant(target.url, checks=[JsonPathExists(path)]), CallProgress())
    assert (result.error_reason, result.error_message) == ("CHECK_FAILED", "check 1: the path cannot be evaluated")


@pytest.mark.parametrize("path", ["$..a", "$.list[*].a", "$.list[?@.a == 1 && @.b]", "$['list','other'][0,1]['a','b']"])
async def test_a_path_may_loop_over_an_answer(caller: HttpTargetCaller, servers: Servers, path: str) -> None:
    target = await servers.http(answering(b'{"list":[{"a":1,"b":2}]}'))
    result = await caller.call(make_grant(target.url, checks=[JsonPathExists(path)]), CallProgress())
    assert result.error_message == ""


async def test_checks_see_an_answer_of_which_little_is_stored(caller: HttpTargetCaller, servers: Servers) -> None:
    target = await servers.http(answering(b'{"pad":"' + b"p" * 5_000 + b'","ok":1}'))
    result = await caller.call(
        make_grant(target.url, checks=[JsonPathExists("$.ok")], store_full=False), CallProgress()
    )
    assert (result.error_reason, len(kept(result))) == ("", 1_024)


async def test_checks_are_not_made_on_a_status_that_fails(caller: HttpTargetCaller, servers: Servers) -> None:
    target = await servers.http(answering(b"busy", 429, Retry_After="7", X_RateLimit_Remaining="0"))
    result = await caller.call(make_grant(target.url, checks=[MinSize(100)]), CallProgress())
    assert (result.status_code, result.error_reason, result.retry_after) == (429, "", 7)
    assert result.rate_limit is not None
    assert (result.rate_limit.family, result.rate_limit.remaining_requests) == ("x-ratelimit", 0)


@pytest.mark.parametrize(
    ("status", "headers", "stops"),
    [(200, {}, False), (410, {}, True), (200, {"Punctual_Stop": "true"}, True), (500, {"Punctual_Stop": "no"}, False)],
)
async def test_a_target_can_ask_to_stop_the_job(
    caller: HttpTargetCaller, servers: Servers, status: int, headers: dict[str, str], stops: bool
) -> None:
    target = await servers.http(answering(b"", status, **headers))
    result = await caller.call(make_grant(target.url), CallProgress())
    assert result.stop_requested is stops
