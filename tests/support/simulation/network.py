"""Calls between processes: they take time, come late, come twice, get lost on the way there or back.

A client holds a `Channel`, which the generated stubs take for a gRPC one. Whatever becomes of a call, its caller hears
of it within the deadline, as `UnavailableError`: so does the channel of production with every unknown outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Protocol

from libs.common.errors import PunctualError, UnavailableError
from tests.support.simulation.kernel import Kernel, ProcessLoop, State
from tests.support.simulation.plan import FAIR

Serve = Callable[[str, Any], Awaitable[Any]]


PUBLIC = "Public"
"""The method by which callers' calls are told from those between services."""


class Server(Protocol):
    """A process that answers calls."""

    name: str
    loop: ProcessLoop

    async def serve(self, method: str, request: Any) -> Any: ...


class Network:
    """The way between clients and the schedulers."""

    def __init__(self, kernel: Kernel, rng: Random) -> None:
        self.weather = FAIR
        self.servers: list[Server] = []
        self._kernel = kernel
        self._rng = rng
        self._open: dict[ProcessLoop, dict[asyncio.Future[Any], None]] = {}
        self._public: dict[object, Server] = {}

    @property
    def serves_callers(self) -> bool:
        """Whether a caller's call is on its way or being served, whether or not the caller still waits."""
        return bool(self._public)

    def delay(self) -> float:
        """Return how long a message takes."""
        if self._rng.random() < self.weather.slow:
            return self._rng.choice((0.05, 0.5, 3.0, 7.0)) * self._rng.random()
        return 0.0002 + 0.002 * self._rng.random()

    async def call(self, client: ProcessLoop, method: str, request: Any, timeout: float) -> Any:
        """Call some server, and return its answer."""
        kernel, rng = self._kernel, self._rng
        answer = client.create_future()
        deadline = client.call_later(timeout, _fail, answer, "the deadline has passed")
        if not self.servers:
            kernel.after(self.delay(), _fail, answer, "nobody is there")
            return await answer
        server = rng.choice(self.servers)
        if server.loop.state is State.DEAD and rng.random() < 0.8:
            # Connections that broke are known to be broken; the others take turns.
            alive = [other for other in self.servers if other.loop.state is not State.DEAD]
            server = rng.choice(alive) if alive else server
        for _ in range(2 if rng.random() < self.weather.doubled else 1):
            if rng.random() >= self.weather.lost:
                copy = object()
                if method == PUBLIC:
                    self._public[copy] = server
                kernel.after(self.delay(), self._arrive, server, method, request, answer, copy)
        try:
            return await answer
        finally:
            deadline.cancel()
            self._open.get(server.loop, {}).pop(answer, None)

    def _arrive(self, server: Server, method: str, request: Any, answer: asyncio.Future[Any], copy: object) -> None:
        if server.loop.state is State.DEAD:
            self._public.pop(copy, None)
            self._kernel.after(self.delay(), _fail, answer, "connection refused")
            return
        self._open.setdefault(server.loop, {})[answer] = None
        serving = server.loop.create_task(server.serve(method, request))
        serving.add_done_callback(lambda _: self._answer(serving, answer, copy))
        if self._rng.random() < 0.5:
            # gRPC cancels what it serves when the caller has given up, wherever that is.
            answer.add_done_callback(lambda _: serving.cancel())

    def _answer(self, serving: asyncio.Task[Any], answer: asyncio.Future[Any], copy: object) -> None:
        self._public.pop(copy, None)
        if serving.cancelled():
            return
        error = serving.exception()
        if error is not None and not isinstance(error, PunctualError):
            self._kernel.failures.append(error)
        elif self._rng.random() >= self.weather.lost:
            self._kernel.after(self.delay(), _resolve, answer, error, None if error else serving.result())

    def connection_lost(self, server: Server) -> None:
        """Let those hear of it who wait for a process that died."""
        self._public = {copy: other for copy, other in self._public.items() if other is not server}
        for answer in self._open.pop(server.loop, {}):
            self._kernel.after(self.delay(), _fail, answer, "connection reset")


class Channel:
    """What one client process sees of the network: as much of `grpc.aio.Channel` as stubs ask for."""

    def __init__(self, network: Network, client: ProcessLoop) -> None:
        self._network = network
        self._client = client

    def unary_unary(self, path: str, **_: Any) -> Callable[..., Awaitable[Any]]:
        method = path.rpartition("/")[2]

        def call(request: Any, *, timeout: float) -> Awaitable[Any]:
            return self._network.call(self._client, method, request, timeout)

        return call

    def stream_unary(self, path: str, **_: Any) -> Callable[..., Awaitable[Any]]:
        def call(*_: Any, **__: Any) -> Awaitable[Any]:
            raise NotImplementedError(path)

        return call


def _resolve(answer: asyncio.Future[Any], error: BaseException | None, value: Any) -> None:
    if not answer.done():
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)


def _fail(answer: asyncio.Future[Any], message: str) -> None:
    _resolve(answer, UnavailableError("UNAVAILABLE", message), None)
