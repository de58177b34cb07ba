"""An issuer's key set by its URL: read whole or not at all, from where we were told and from nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.scheduler.adapters.tokens.key_sources import MAX_BYTES, KeyUrl

JWKS = b'{"keys": []}'


@pytest.fixture
async def issuer() -> AsyncIterator[TestServer]:
    async def redirect(_request: web.Request) -> web.Response:
        raise web.HTTPFound("/jwks")

    async def answer(request: web.Request) -> web.Response:
        bodies = {"/jwks": JWKS, "/largest": b" " * MAX_BYTES, "/too-large": b" " * (MAX_BYTES + 1)}
        return web.Response(body=bodies[request.path])

    app = web.Application()
    app.router.add_get("/redirect", redirect)
    for path in ("/jwks", "/largest", "/too-large"):
        app.router.add_get(path, answer)
    async with TestServer(app) as server:
        yield server


@pytest.mark.parametrize(("path", "size"), [("/jwks", len(JWKS)), ("/largest", MAX_BYTES)])
async def test_set_is_read_whole(issuer: TestServer, path: str, size: int) -> None:
    assert len(await KeyUrl(str(issuer.make_url(path)))()) == size


@pytest.mark.parametrize("path", ["/redirect", "/none", "/too-large"])
async def test_anything_else_is_refused(issuer: TestServer, path: str) -> None:
    with pytest.raises(ValueError):
        await KeyUrl(str(issuer.make_url(path)))()


async def test_absent_issuer_is_an_io_error(unused_tcp_port: int) -> None:
    with pytest.raises(OSError, match="ClientConnectorError"):
        await KeyUrl(f"http://127.0.0.1:{unused_tcp_port}/jwks")()
