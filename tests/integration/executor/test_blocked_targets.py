"""No weapon: whatever a job or a target says, nothing inside is ever dialled. A canary on loopback counts the hits."""

from __future__ import annotations

import socket

import pytest
from aiohttp import web
from yarl import URL

from services.executor.domain.attempt import Header
from services.executor.domain.report import CallProgress, CallResult, Result
from tests.integration.executor.targets import Handler, Servers, Target, make_grant, open_caller


async def hit(request: web.Request) -> web.StreamResponse:
    return web.Response(text="inside")


@pytest.fixture
async def canary(servers: Servers) -> Target:
    return await servers.http(hit, "127.0.0.2", "127.1.1.1", "::1")


def is_blocked(result: CallResult) -> bool:
    return result.result is Result.NOT_SENT and result.error_reason in {"BLOCKED_ADDRESS", "BAD_URL", "DNS_FAILED"}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.2", "127.1.1.1", "127.255.255.254", "127.00.00.01", "127.0.0.0x1", "00000177.0.0.1", "0X7F.0X0.0X0.1",
        "0x7F000002", "2130706434", "017700000002", "0x7f.0x1.0x0101", "127.65793", "①27.0.0.1", "127．0．0．2",
        "[::0001]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::ffff:7f00:2]", "[::ffff:127.1.1.1]",
        "[::ffff:0:127.0.0.1]", "[64:ff9b:1::7f00:1]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[::1%25lo]",
        "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.170.2", "100.100.100.200", "192.0.0.192",
        "[64:ff9b::a9fe:a9fe]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "[fc00::1]", "[ff02::1]",
        "[2001:db8::1]", "198.18.0.1", "192.0.2.1", "240.0.0.1", "255.255.255.255", "localhost.localdomain",
        "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0x7f.0x0.0x0.0x1",
        "017700000001", "127.0.0.1.", "0.0.0.0", "0", "localhost", "LOCALHOST", "localhost.", "localhost..",
        "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
        "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fec0::1]",
        "①②⑦.⓪.⓪.①", "１２７.０.０.１", "127。0。0。1", "loc%61lhost", "127.0.0.1%00.example.com",
        "169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "168.63.129.16", "224.0.0.1",
        "metadata.google.internal", "user@127.0.0.1", "127.0.0.1\\@example.com", "127.0.0.1\t", "example.com@127.0.0.1",
    ],
)  # fmt: skip
async def test_no_spelling_of_an_inside_host_is_dialled(canary: Target, host: str) -> None:
    port = URL(canary.url).port
    async with open_caller() as caller:
        result = await caller.call(make_grant(f"http://{host}:{port}/", connect=0.5), CallProgress())
    assert canary.requests == []
    assert is_blocked(result), result
    assert "127" not in result.error_message


async def test_a_name_that_points_inside_is_refused(canary: Target) -> None:
    async def inside(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with open_caller(lookup=inside) as caller:
        result = await caller.call(make_grant(f"http://rebind.example:{URL(canary.url).port}/"), CallProgress())
    assert (result.error_reason, canary.requests) == ("BLOCKED_ADDRESS", [])


async def test_mixed_answers_are_refused_entirely(canary: Target) -> None:
    async def mixed(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    async with open_caller(lookup=mixed) as caller:
        result = await caller.call(make_grant(f"http://mixed.example:{URL(canary.url).port}/"), CallProgress())
    assert (result.error_reason, canary.requests) == ("BLOCKED_ADDRESS", [])


async def test_a_rebinding_name_is_looked_up_once_and_never_dialled_inside(
    canary: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]])
    dialled: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        return next(answers)

    def no_socket(family: int, kind: int, protocol: int) -> socket.socket:
        dialled.append("outside")
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("services.executor.adapters.http.guarded_connector.socket.socket", no_socket)
    async with open_caller(lookup=rebinding) as caller:
        grant = make_grant(f"http://rebind.example:{URL(canary.url).port}/")
        first = await caller.call(grant, CallProgress())
        second = await caller.call(grant, CallProgress())
    assert (first.error_reason, second.error_reason) == ("CONNECT_FAILED", "CONNECT_FAILED")
    assert (dialled, canary.requests) == (["outside", "outside"], [])


async def test_an_allowed_host_name_reaches_inside_and_its_address_alone_does_not(canary: Target) -> None:
    async def inside(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    port = URL(canary.url).port
    async with open_caller(f"llm.internal:{port}", lookup=inside) as caller:
        allowed = await caller.call(make_grant(f"http://llm.internal:{port}/"), CallProgress())
        other = await caller.call(make_grant(f"http://other.internal:{port}/"), CallProgress())
        literal = await caller.call(make_grant(canary.url), CallProgress())
    assert (allowed.status_code, other.error_reason, literal.error_reason) == (
        200,
        "BLOCKED_ADDRESS",
        "BLOCKED_ADDRESS",
    )


def redirecting(location: str, status: int = 307) -> Handler:
    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": location})

    return redirect


async def test_what_another_look_up_would_say_does_not_matter(canary: Target, servers: Servers) -> None:
    """A name that is public when it is asked about first and inside from then on; by itself and behind a redirect."""
    port = URL(canary.url).port
    asked = 0

    async def rebinding(host: str, port: int) -> list[str]:
        nonlocal asked
        if host == "begin.example":
            return ["127.0.0.1"]
        asked += 1
        return ["192.0.2.1"] if asked == 1 else ["127.0.0.1", "::1"]

    begin = await servers.http(redirecting(f"http://rebind.example:{port}/", 308))
    async with open_caller(f"begin.example:{URL(begin.url).port}", lookup=rebinding) as caller:
        urls = [f"http://rebind.example:{port}/", f"http://begin.example:{URL(begin.url).port}/"] * 2
        results = [await caller.call(make_grant(url, connect=0.5), CallProgress()) for url in urls]
    assert canary.requests == []
    assert {result.error_reason for result in results} == {"BLOCKED_ADDRESS"}


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data/", "http://[::1]:{port}/", "http://127.0.0.2:{port}/", "//127.1:{port}/",
     "http://localhost:{port}/", "http://2130706433:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://0:{port}/"],
)  # fmt: skip
async def test_no_spelling_in_a_redirect_is_dialled(servers: Servers, canary: Target, location: str) -> None:
    target = await servers.http(redirecting(location.replace("{port}", str(URL(canary.url).port))))
    async with open_caller(f"127.0.0.1:{URL(target.url).port}") as caller:
        result = await caller.call(make_grant(target.url, connect=0.5), CallProgress())
    assert canary.requests == []
    assert is_blocked(result), result


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_an_inside_address_is_never_followed(servers: Servers, canary: Target, status: int) -> None:
    target = await servers.http(redirecting(canary.url, status))
    async with open_caller(f"127.0.0.1:{URL(target.url).port}") as caller:
        result = await caller.call(make_grant(target.url), CallProgress())
    assert canary.requests == []
    expected = (Result.NOT_SENT, "BLOCKED_ADDRESS") if status >= 307 else (Result.ANSWERED, "")
    assert (result.result, result.error_reason) == expected


async def test_redirects_that_keep_the_post_are_followed_without_secrets(servers: Servers) -> None:
    end = await servers.http(hit)
    begin = await servers.http(redirecting(end.url + "moved", 308))
    headers = [Header("Authorization", "Bearer k"), Header("X-Key", "secret", sensitive=True), Header("X-Plain", "p")]
    async with open_caller("127.0.0.1") as caller:
        result = await caller.call(make_grant(begin.url, headers=headers, secrets=[b"s" * 32]), CallProgress())
    [(request, body)] = end.requests
    assert (result.status_code, result.redirect_count, request.path) == (200, 1, "/moved")
    assert body == b'{"prompt":"hello"}'
    assert request.headers["Idempotency-Key"] == "01J9ZK3M5T7W9Y2B4D6F8H0J1K"
    assert request.headers["X-Plain"] == "p"
    for name in ("Authorization", "X-Key", "webhook-id", "webhook-timestamp", "webhook-signature"):
        assert name in begin.requests[0][0].headers
        assert name not in request.headers


@pytest.mark.parametrize(("limit", "hits", "reason"), [(0, 1, "TOO_MANY_REDIRECTS"), (2, 3, "TOO_MANY_REDIRECTS")])
async def test_redirects_are_counted(servers: Servers, limit: int, hits: int, reason: str) -> None:
    target = await servers.http(redirecting("/again"))
    async with open_caller("127.0.0.1") as caller:
        result = await caller.call(make_grant(target.url, max_redirects=limit), CallProgress())
    assert (result.result, result.status_code, result.error_reason) == (Result.ANSWERED, 307, reason)
    assert (len(target.requests), result.redirect_count) == (hits, limit)


@pytest.mark.parametrize("location", ["http://u:p@127.0.0.1/", "ftp://127.0.0.1/", "http://127.0.0.1\\@x/", "http://["])
async def test_a_redirect_to_a_bad_address_ends_there(servers: Servers, location: str) -> None:
    target = await servers.http(redirecting(location))
    async with open_caller("127.0.0.1") as caller:
        result = await caller.call(make_grant(target.url), CallProgress())
    assert (result.result, result.status_code, result.error_reason) == (Result.ANSWERED, 307, "BAD_REDIRECT")
