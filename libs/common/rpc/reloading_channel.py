"""A channel whose client certificate can be replaced: when the files change, later calls use a new connection.

gRPC reads a client certificate once, when a channel is made. So this channel makes another one from the new files and
lets calls in progress end on the old one. Only a change of the files opens a channel, hence there are hardly ever two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
from grpc import aio

from libs.common.rpc.client import open_channel
from libs.common.rpc.tls import CertificateBundle, CertificateFiles, WatchedCertificate, channel_credentials

_LAST_CALLS_SECONDS = 30.0
"""How long calls in progress may go on over a connection with a replaced certificate."""


def open_internal_channel(address: str, files: CertificateFiles | None, **options: Any) -> aio.Channel:
    """Return a channel to another service: by mutual TLS with these files, or plaintext without any.

    The options are those of `open_channel`.
    """
    if files is None:
        return open_channel(address, **options)
    return ReloadingChannel(
        WatchedCertificate(files),
        lambda bundle: open_channel(address, credentials=channel_credentials(bundle), **options),
    )


class ReloadingChannel(aio.Channel):
    """Passes each call to the channel with the newest certificate. Stubs are made over it once, as over any channel."""

    def __init__(self, watched: WatchedCertificate, open_with: Callable[[CertificateBundle], aio.Channel]) -> None:
        self._watched = watched
        self._open_with = open_with
        self._channel = open_with(watched.current)
        self._closing: set[asyncio.Task[None]] = set()

    def current(self) -> aio.Channel:
        """Return the channel to call on now."""
        bundle = self._watched.changed()
        if bundle is not None:
            old, self._channel = self._channel, self._open_with(bundle)
            closing = asyncio.create_task(old.close(_LAST_CALLS_SECONDS), name="close-replaced-channel")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        return self._channel

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Return a callable for one request and one answer."""
        return _Method(self, "unary_unary", args, kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Return a callable for one request and a stream of answers."""
        return _Method(self, "unary_stream", args, kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Return a callable for a stream of requests and one answer."""
        return _Method(self, "stream_unary", args, kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Return a callable for streams both ways."""
        return _Method(self, "stream_stream", args, kwargs)

    async def close(self, grace: float | None = None) -> None:
        """Close this channel and any replaced one."""
        for closing in self._closing:
            closing.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the channel in use."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait for another state of the channel in use."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the channel in use is connected."""
        await self.current().channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.close()


class _Method:
    """One RPC of a stub: made anew on each new channel, and kept for as long as that is in use."""

    def __init__(self, owner: ReloadingChannel, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._owner = owner
        self._kind = kind
        self._args = args
        self._kwargs = kwargs
        self._made_on: aio.Channel | None = None
        self._call: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        channel = self._owner.current()
        if channel is not self._made_on:
            self._call = getattr(channel, self._kind)(*self._args, **self._kwargs)
            self._made_on = channel
        return self._call(*args, **kwargs)
