"""Targets on loopback, grants to reach them by, and callers over the real HTTP edge."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ssl import SSLContext

from aiohttp import web

from libs.common.clock import SystemClock
from services.executor.adapters.http.answer_packing import AnswerPacker
from services.executor.adapters.http.deadlines import Deadlines
from services.executor.adapters.http.guarded_connector import GuardedConnector, Lookup, SystemLookup
from services.executor.adapters.http.response_checks import ResponseChecker
from services.executor.adapters.http.target_caller import HttpTargetCaller
from services.executor.adapters.http.target_wire import TargetWire
from services.executor.domain.address_guard import AddressGuard, AllowedTarget
from services.executor.domain.attempt import (
    AttemptLimits,
    Grant,
    Header,
    Lease,
    ResponseCheck,
    ResponsePolicy,
    TargetRequest,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def make_grant(
    url: str,
    *,
    headers: Sequence[Header] = (),
    body: bytes = b'{"prompt":"hello"}',
    total: float = 5.0,
    connect: float = 2.0,
    first_byte: float = 5.0,
    max_redirects: int = 5,
    secrets: Sequence[bytes] = (),
    checks: Sequence[ResponseCheck] = (),
    max_size: int = 10 * 1024 * 1024,
    store_full: bool = True,
    due: datetime | None = None,
    execution_id: str = "01J9ZK3M5T7W9Y2B4D6F8H0J1K",
    fencing_token: int = 7,
) -> Grant:
    due = due or datetime.now(UTC)
    request = TargetRequest(
        url=url,
        headers=tuple(headers),
        body=body,
        total_timeout=total,
        connect_timeout=connect,
        first_byte_timeout=first_byte,
        max_redirects=max_redirects,
        signing_secrets=tuple(secrets),
        response_policy=ResponsePolicy(frozenset(), tuple(checks), max_size, store_full),
    )
    limits = AttemptLimits(60, 60, 10, 1)
    return Grant(Lease(execution_id, fencing_token), "job", "org", 1, due, due, request, limits)


@dataclass
class Target:
    """An HTTP server whose answer a test chooses."""

    url: str
    requests: list[tuple[web.Request, bytes]] = field(default_factory=list)


class Servers:
    """Starts servers on loopback and stops them with the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def http(self, handler: Handler, *also_at: str) -> Target:
        """Start a server at 127.0.0.1, and at other addresses with the same port."""
        target = Target("")

        async def handle(request: web.Request) -> web.StreamResponse:
            target.requests.append((request, await request.read()))
            return await handler(request)

        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        for address in also_at:
            await web.TCPSite(runner, address, port).start()
        target.url = f"http://127.0.0.1:{port}/"
        return target

    async def raw(self, handler: RawHandler, tls: SSLContext | None = None, receive_buffer: int = 0) -> str:
        tasks: set[asyncio.Task[None]] = set()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                tasks.discard(task)
                writer.close()

        listener = socket.create_server(("127.0.0.1", 0))
        if receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        server = await asyncio.start_server(handle, sock=listener, ssl=tls)

        async def stop() -> None:
            server.close()
            for task in tuple(tasks):
                task.cancel()
            await asyncio.sleep(0)

        self._stack.push_async_callback(stop)
        return f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@asynccontextmanager
async def open_caller(
    *allowed: str, lookup: Lookup | None = None, tls: SSLContext | None = None, keepalive: float = 15
) -> AsyncIterator[HttpTargetCaller]:
    async with AsyncExitStack() as edges:
        system = SystemLookup()
        edges.callback(system.close)
        threads = ThreadPoolExecutor(2)
        edges.callback(threads.shutdown)
        guard = AddressGuard([AllowedTarget.parse(item) for item in allowed])
        connector = GuardedConnector(
            guard, lookup or system, limit_per_host=100, keepalive_seconds=keepalive, dns_cache_seconds=10, tls=tls
        )
        wire = TargetWire(connector)
        edges.push_async_callback(wire.close)
        deadlines = Deadlines(SystemClock())
        edges.callback(deadlines.close)
        yield HttpTargetCaller(
            wire,
            deadlines,
            AnswerPacker(threads),
            ResponseChecker(threads),
            SystemClock(),
            user_agent="Punctual/test",
        )
