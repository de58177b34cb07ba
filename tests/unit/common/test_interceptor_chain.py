"""The chain of interceptors: the order of its layers, and that methods which exist are put together once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import grpc
from grpc.aio import ServerInterceptor

from libs.common.rpc.interceptor_chain import InterceptorChain
from libs.common.rpc.surround import Context, Handler, guard


class Details(NamedTuple):
    """What gRPC says of a call before it has a handler."""

    method: str


class Layer(ServerInterceptor):
    """Notes when it is asked for a handler, and when its handler is called."""

    def __init__(self, name: str, notes: list[str], *, stands_in: bool = False) -> None:
        self._name = name
        self._notes = notes
        self._stands_in = stands_in

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler | None]], handler_call_details: Any
    ) -> Handler | None:
        self._notes.append(f"{self._name} asked")
        handler = await continuation(handler_call_details)
        if handler is None:
            return echo() if self._stands_in else None
        return guard(handler, self._called)

    async def _called(self, _context: Context) -> None:
        self._notes.append(f"{self._name} called")


def echo() -> Handler:
    async def answer(request: str, _context: object) -> str:
        return request

    handler: Handler = grpc.unary_unary_rpc_method_handler(answer)
    return handler


class Server:
    """Has one method, and counts how often it is looked for."""

    def __init__(self) -> None:
        self.sought: list[str] = []
        self._handler = echo()

    async def find(self, details: Details) -> Handler | None:
        self.sought.append(details.method)
        return self._handler if details.method == "/known" else None


async def call(chain: InterceptorChain, server: Server, method: str) -> str:
    handler: Any = await chain.intercept_service(server.find, Details(method))  # type: ignore[arg-type] # as gRPC's
    answer: str = await handler.unary_unary("hello", None)
    return answer


async def test_layers_are_put_around_a_method_once_and_called_from_the_outermost_in() -> None:
    server, notes = Server(), list[str]()
    chain = InterceptorChain([Layer("outer", notes), Layer("inner", notes)])
    assert await call(chain, server, "/known") == "hello"
    assert notes == ["outer asked", "inner asked", "outer called", "inner called"]
    notes.clear()
    assert await call(chain, server, "/known") == "hello"
    assert notes == ["outer called", "inner called"]
    assert server.sought == ["/known"]


async def test_methods_that_do_not_exist_are_not_remembered() -> None:
    server, notes = Server(), list[str]()
    chain = InterceptorChain([Layer("outer", notes, stands_in=True), Layer("inner", notes)])
    for _ in range(2):
        assert await call(chain, server, "/unknown") == "hello"
    assert server.sought == ["/unknown", "/unknown"]


async def test_without_layers_the_handler_is_the_servers_own() -> None:
    server = Server()
    assert await call(InterceptorChain([]), server, "/known") == "hello"
    assert await InterceptorChain([]).intercept_service(server.find, Details("/unknown")) is None  # type: ignore[arg-type]
