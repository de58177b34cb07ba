"""Channels to other Punctual services: balanced over a name's addresses, kept alive, bounded, speaking our errors.

Calls on such a channel raise `PunctualError`, never `AioRpcError`, and have a deadline even where the caller forgot
one. Opening connects nothing: a peer that is not there yet shows as UnavailableError on the calls, and later ones
succeed. Nothing is repeated here; who may repeat what is the caller's knowledge.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import grpc
from grpc import aio

from libs.common.errors import UnavailableError
from libs.common.rpc.errors import from_rpc_error
from libs.common.rpc.server import MAX_MESSAGE_BYTES

DEFAULT_DEADLINE_SECONDS = 10.0
_TARGET_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:")


def open_channel(
    address: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    keepalive_seconds: float = 10.0,
) -> aio.Channel:
    """Return a channel to `host:port` (all addresses of the host take turns) or to a gRPC target such as `unix:`."""
    target = address if address.startswith(_TARGET_SCHEMES) else f"dns:///{address}"
    options = _options(max_message_bytes, keepalive_seconds)
    interceptors = (_UnaryErrors(deadline_seconds), _UploadErrors(deadline_seconds), _DownloadErrors(deadline_seconds))
    if credentials is None:
        return aio.insecure_channel(target, options=options, interceptors=interceptors)
    return aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


def _options(max_message_bytes: int, keepalive_seconds: float) -> list[tuple[str, Any]]:
    return [
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", int(keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A restarted peer is found again within a second or two, not within gRPC's default of up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ]


class _Deadline:
    """Gives a call the default deadline where it has none."""

    def __init__(self, deadline_seconds: float) -> None:
        self._deadline_seconds = deadline_seconds

    def _with_deadline(self, call: aio.ClientCallDetails) -> aio.ClientCallDetails:
        if call.timeout is not None:
            return call
        return aio.ClientCallDetails(
            call.method, self._deadline_seconds, call.metadata, call.credentials, call.wait_for_ready
        )


class _UnaryErrors(_Deadline, aio.UnaryUnaryClientInterceptor):
    """Raises our errors from calls with one request and one answer."""

    async def intercept_unary_unary(
        self,
        continuation: Callable[[aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        """Make the call."""
        try:
            return await (await continuation(self._with_deadline(client_call_details), request))
        except aio.AioRpcError as error:
            raise from_rpc_error(error) from error


class _UploadErrors(_Deadline, aio.StreamUnaryClientInterceptor):
    """Raises our errors from calls with a stream of requests and one answer."""

    async def intercept_stream_unary(
        self,
        continuation: Callable[[aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: aio.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        """Make the call; the requests must come from an iterator, not through the call's `write`."""
        return _Answer(await continuation(self._with_deadline(client_call_details), request_iterator))


class _DownloadErrors(_Deadline, aio.UnaryStreamClientInterceptor):
    """Raises our errors from calls with one request and a stream of answers."""

    async def intercept_unary_stream(
        self,
        continuation: Callable[[aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        """Make the call."""
        return _answers(await continuation(self._with_deadline(client_call_details), request))


class _Answer:
    """A call that raises our errors when it is awaited; in all else the call itself."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._call.__await__())
        except aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled us: gRPC cancels a call whose stream of requests breaks, as when the peer is not there.
            raise UnavailableError("CANCELLED", "the stream of requests broke off") from error


async def _answers(call: Any) -> AsyncIterator[Any]:
    try:
        async for answer in call:
            yield answer
    except aio.AioRpcError as error:
        raise from_rpc_error(error) from error
