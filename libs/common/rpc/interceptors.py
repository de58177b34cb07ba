"""The server's outermost layer: each call gets a request id, each failure a proper status, each end an observer.

That holds for what gRPC would refuse in its own words, too: a method that does not exist, a message that is none.
A PunctualError leaves as its status with details. Anything else is a defect: it leaves as INTERNAL with an id, and the
traceback is logged under that id; its text never leaves, since it may hold another org's data. CancelledError passes.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import AbortError, ServerInterceptor

from libs.common.errors import InternalError, InvalidArgumentError, PunctualError, UnimplementedError
from libs.common.ids import new_id
from libs.common.logs import bound, get_logger
from libs.common.rpc.errors import DETAILS_KEY, ERROR_ID, status_code, to_status
from libs.common.rpc.surround import Context, Handler, handler_parts, surround

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

UNKNOWN_METHOD = "unknown"
"""What observers are told of calls to methods that do not exist: their names are the caller's, and without number."""

Translate = Callable[[Exception], PunctualError | None]
Observe = Callable[[str, grpc.StatusCode, float], None]

# Beside what is bound to the log lines: that cannot be read without looking through all that a task carries.
_current_request_id: ContextVar[str] = ContextVar("request_id", default="")

log = get_logger(__name__)


def _translate_nothing(_error: Exception) -> PunctualError | None:
    return None


def _observe_nothing(_method: str, _code: grpc.StatusCode, _seconds: float) -> None:
    """Count nothing."""


class ErrorInterceptor(ServerInterceptor):
    """Wraps every handler of a server, unary or streaming.

    `translate` turns errors of a library into ours (a lost database into UNAVAILABLE), or returns None. `observe` is
    told each call's full method name, final code and duration in seconds.
    """

    def __init__(self, *, translate: Translate = _translate_nothing, observe: Observe = _observe_nothing) -> None:
        self._translate = translate
        self._observe = observe

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler with this layer around it; for an unknown method, one that says so."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return surround(_unknown(method), lambda context: _Call(self, UNKNOWN_METHOD, context))
        return surround(_reading_safely(handler), lambda context: _Call(self, method, context))

    def observe(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        """Tell the hook that a call ended."""
        self._observe(method, code, seconds)

    def known_error(self, error: Exception) -> PunctualError:
        """Return the error to send; a defect is logged here, and leaves as nothing but an id."""
        known = error if isinstance(error, PunctualError) else self._translate(error)
        if known is not None and not isinstance(known, InternalError):
            return known
        error_id = new_id()
        log.error("rpc.failed", error_id=error_id, exc_info=error)
        reason = known.reason if known is not None else "INTERNAL"
        return InternalError(reason, f"internal error {error_id}", metadata={ERROR_ID: error_id})


class _Call(AbstractAsyncContextManager[None]):
    """One call in progress: binds its request id to the log lines, and ends it with the right status."""

    def __init__(self, layer: ErrorInterceptor, method: str, context: Context) -> None:
        self._layer = layer
        self._method = method
        self._context = context
        self._request_id = _request_id(context)
        self._bound = bound(request_id=self._request_id, method=method)
        self._began = time.perf_counter()

    async def __aenter__(self) -> None:
        self._bound.__enter__()
        _current_request_id.set(self._request_id)
        self._context.set_trailing_metadata(((REQUEST_ID_KEY, self._request_id),))

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        code = grpc.StatusCode.OK
        try:
            if isinstance(error, AbortError):
                code = _code(self._context)  # a handler chose its own status; it passes as it is
            elif isinstance(error, Exception):
                known = self._layer.known_error(error)
                code = status_code(known)
                await self._abort(known)
            elif error is not None:
                code = grpc.StatusCode.CANCELLED
        finally:
            self._bound.__exit__(None, None, None)
            _current_request_id.set("")
            self._layer.observe(self._method, code, time.perf_counter() - self._began)

    async def _abort(self, error: PunctualError) -> None:
        status = to_status(error)
        await self._context.abort(
            status_code(error),
            status.message,
            trailing_metadata=(
                (DETAILS_KEY, status.SerializeToString()),
                (REQUEST_ID_KEY, self._request_id),
            ),
        )


class _Unreadable:
    """Stands for a message that could not be parsed, so that the handler's own layer can say so."""


def _reading_safely(handler: Handler) -> Handler:
    """Return the handler with requests that cannot be parsed refused as the caller's mistake."""
    parts: Any = handler
    parse = parts.request_deserializer
    if parse is None:
        return handler

    def deserialize(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _Unreadable()

    make, behavior = handler_parts(handler)
    check = _readable if parts.request_streaming else _read

    def checked(request: Any, context: Context) -> Any:
        return behavior(check(request), context)

    wrapped: Handler = make(checked, deserialize, parts.response_serializer)
    return wrapped


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _read(request)


def _read(request: Any) -> Any:
    if isinstance(request, _Unreadable):
        raise InvalidArgumentError.of("request", "UNREADABLE_MESSAGE", "is not a message of this method's type")
    return request


def _unknown(method: str) -> Handler:
    async def refuse(_requests: object, _context: Context) -> AsyncIterator[bytes]:
        raise UnimplementedError("UNKNOWN_METHOD", "there is no such method", metadata={"method": method[:200]})
        yield b""

    handler: Handler = grpc.stream_stream_rpc_method_handler(refuse)
    return handler


def current_request_id() -> str:
    """Return the id of the call that is being served; empty outside of one."""
    return _current_request_id.get()


def _request_id(context: Context) -> str:
    """Return the caller's id for this call if it has a harmless one, or a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return new_id()


def _code(context: Context) -> grpc.StatusCode:
    """Return the code that a handler aborted with; the context keeps it as a number."""
    code: Any = context.code()
    return next((known for known in grpc.StatusCode if code in (known, known.value[0])), grpc.StatusCode.UNKNOWN)
