"""A scheduler's public API whose answers a test writes: every RPC of the protos, served by grpc.aio in its own thread.

A method without a script answers an empty message. Its own event loop lets a test be synchronous, as the command is.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message

from libs.client.repeatable import PUBLIC_SERVICES
from libs.common.errors import PunctualError
from libs.common.rpc.interceptors import ErrorInterceptor
from libs.common.rpc.server import RpcServer

HOLD = object()
"""In a stream's script: sends nothing until the caller goes away."""


@dataclass
class Seen:
    """One call as it arrived."""

    method: str
    request: Any
    metadata: dict[str, Any]
    deadline: float


@dataclass
class FakePunctual:
    """Scripts by method name; each call takes the next item: a message, an error, or a list of them for a stream."""

    scripts: dict[str, deque[Any]] = field(default_factory=lambda: defaultdict(deque))
    seen: list[Seen] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    address: str = ""

    def script(self, method: str, *answers: Any) -> None:
        self.scripts[method].extend(answers)

    def requests(self, method: str) -> list[Any]:
        return [call.request for call in self.seen if call.method == method]

    def note(self, method: str, request: Any, context: Any) -> Any:
        self.seen.append(Seen(method, request, dict(context.invocation_metadata()), context.time_remaining()))
        script = self.scripts[method]
        return script.popleft() if script else None


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, fake: FakePunctual) -> None:
        self._fake = fake
        self._methods = {
            f"/{service.full_name}/{method.name}": method for service in PUBLIC_SERVICES for method in service.methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = self._methods.get(handler_call_details.method)
        if method is None:
            return None
        request_class = message_factory.GetMessageClass(method.input_type)
        answer_class = message_factory.GetMessageClass(method.output_type)

        async def unary(request: Message, context: Any) -> Message:
            answer = self._fake.note(method.name, request, context)
            if isinstance(answer, PunctualError):
                raise answer
            return answer or answer_class()

        async def stream(request: Message, context: Any) -> AsyncIterator[Message]:
            try:
                for item in self._fake.note(method.name, request, context) or []:
                    if item is HOLD:
                        await asyncio.Event().wait()
                    if isinstance(item, PunctualError):
                        raise item
                    yield item
            finally:
                self._fake.ended.append(method.name)

        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        behavior = stream if method.server_streaming else unary
        return make(behavior, request_class.FromString, answer_class.SerializeToString)


@contextmanager
def running(fake: FakePunctual) -> Iterator[None]:
    """Serve in a thread of its own until left."""
    ready = threading.Event()
    stop: list[Any] = []

    async def serve() -> None:
        server = RpcServer("127.0.0.1:0", interceptors=[ErrorInterceptor()])
        server.add(lambda handlers, to: to.add_generic_rpc_handlers((handlers,)), _Handlers(fake))
        await server.start()
        fake.address = f"127.0.0.1:{server.port}"
        stopping = asyncio.Event()
        stop.extend((asyncio.get_running_loop(), stopping))
        ready.set()
        await stopping.wait()
        await server.stop(0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loop, stopping = stop
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
