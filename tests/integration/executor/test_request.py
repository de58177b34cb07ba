"""What a target sees of an attempt, and what never reaches it."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from services.executor.adapters.http.target_caller import HttpTargetCaller
from services.executor.domain.attempt import Header
from services.executor.domain.report import CallProgress, Result
from services.executor.domain.signature import sign
from tests.integration.executor.targets import Servers, make_grant

SECRET = bytes(range(32))


async def ok(request: web.Request) -> web.StreamResponse:
    return web.Response(text="fine")


async def test_the_post_carries_the_body_our_headers_and_the_users(caller: HttpTargetCaller, servers: Servers) -> None:
    target = await servers.http(ok)
    grant = make_grant(target.url + "v1?x=1", headers=[Header("X-Mine", "yes"), Header("Authorization", "Bearer k")])
    result = await caller.call(grant, CallProgress())
    [(request, body)] = target.requests
    assert (result.result, result.status_code) == (Result.ANSWERED, 200)
    assert (request.method, request.path_qs, body) == ("POST", "/v1?x=1", b'{"prompt":"hello"}')
    assert request.headers["X-Mine"] == "yes"
    assert request.headers["Authorization"] == "Bearer k"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == "Punctual/test"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Idempotency-Key"] == grant.lease.execution_id
    assert request.headers["Punctual-Attempt"] == "1"
    assert request.headers["Punctual-Fire-Time"].endswith("Z")
    assert request.headers["Punctual-Deadline"] > request.headers["Punctual-Fire-Time"]
    assert "webhook-signature" not in request.headers


async def test_a_user_may_set_the_content_type(caller: HttpTargetCaller, servers: Servers) -> None:
    target = await servers.http(ok)
    await caller.call(make_grant(target.url, headers=[Header("content-type", "text/plain")]), CallProgress())
    assert target.requests[0][0].headers.getall("Content-Type") == ["text/plain"]


async def test_the_signature_covers_the_bytes_on_the_wire(caller: HttpTargetCaller, servers: Servers) -> None:
    target = await servers.http(ok)
    body = "Grüße ☕".encode() + b"\xff\x00"
    await caller.call(make_grant(target.url, body=body, secrets=[SECRET, SECRET[::-1]]), CallProgress())
    [(request, received)] = target.requests
    stamp = int(request.headers["webhook-timestamp"])
    assert received == body
    assert request.headers["webhook-signature"].split() == [
        sign(request.headers["webhook-id"], stamp, body, secret) for secret in (SECRET, SECRET[::-1])
    ]


async def test_a_body_of_megabytes_is_sent_whole(caller: HttpTargetCaller, servers: Servers) -> None:
    sizes = []

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        sizes.append(len(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    url = await servers.raw(raw)
    await caller.call(make_grant(url, body=b"x" * 3_000_000), CallProgress())
    assert sizes == [3_000_000]


@pytest.mark.parametrize(
    "header",
    [
        Header("X-A", "v\r\nX-Injected: yes"),
        Header("X-A", "v\nX-Injected: yes"),
        Header("X-A", "v\x00"),
        Header("X-A: v\r\nX-Injected", "yes"),
        Header("X A", "v"),
        Header("", "v"),
        Header("Host", "inside.example"),
        Header("content-length", "0"),
        Header("Transfer-Encoding", "chunked"),
        Header("Connection", "close"),
        Header("Idempotency-Key", "mine"),
        Header("Punctual-Attempt", "9"),
        Header("webhook-signature", "v1,x"),
    ],
)
async def test_headers_that_would_become_something_else_are_never_sent(
    caller: HttpTargetCaller, servers: Servers, header: Header
) -> None:
    target = await servers.http(ok)
    progress = CallProgress()
    result = await caller.call(make_grant(target.url, headers=[header]), progress)
    assert (result.result, result.error_reason) == (Result.NOT_SENT, "BAD_HEADER")
    assert header.value not in result.error_message
    assert not progress.may_be_sent
    assert target.requests == []


async def test_no_proxy_of_the_environment_is_used(
    caller: HttpTargetCaller, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = await servers.http(ok)
    target = await servers.http(ok)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, canary.url)
    await caller.call(make_grant(target.url), CallProgress())
    assert (len(target.requests), canary.requests) == (1, [])


async def test_credentials_of_a_netrc_and_cookies_are_not_used(caller: HttpTargetCaller, servers: Servers) -> None:
    async def with_cookie(request: web.Request) -> web.StreamResponse:
        return web.Response(headers={"Set-Cookie": "session=1"})

    target = await servers.http(with_cookie)
    for _ in range(2):
        await caller.call(make_grant(target.url), CallProgress())
    assert all("Cookie" not in request.headers for request, _ in target.requests)


async def test_a_pooled_connection_is_used_again(caller: HttpTargetCaller, servers: Servers) -> None:
    target = await servers.http(ok)
    for _ in range(3):
        await caller.call(make_grant(target.url), CallProgress())
    peers = {
        request.transport.get_extra_info("peername") if request.transport else None for request, _ in target.requests
    }
    assert len(peers) == 1
