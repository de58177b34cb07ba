"""Sends a POST over a connection of aiohttp's pool and reads its answer, without the session that aiohttp puts on top.

A session does much that nobody asks for here: cookies, proxies, redirects, tracing, content codings, a task for each
body (docs/decisions/0016-aiohttp-without-its-session.md). What stays aiohttp's is what is hard: the pool, TLS, dialling
(behind our guard), and the parser of answers. Of its inside this relies on `Connector.connect` asking a request for
nothing but where to, on `ResponseHandler.set_response_params` and `read`, and on `should_close`, by which a released
connection is kept or closed, and a pooled one used or replaced. aiohttp is pinned; test_target_wire.py holds what is
relied on.

A connection is given back when the answer's body has been read to its end, and closed in all other cases.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property, lru_cache

from aiohttp import (
    ClientOSError,
    ClientPayloadError,
    ClientRequest,
    ClientTimeout,
    InvalidURL,
    ServerDisconnectedError,
    StreamReader,
)
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.hdrs import METH_POST
from multidict import CIMultiDictProxy
from yarl import URL

from services.executor.adapters.http.exchange import Exchange
from services.executor.adapters.http.guarded_connector import GuardedConnector
from services.executor.domain.request_headers import request_head

MAX_HEADER_LINES = 128
"""An answer with more header lines than this is none."""
MAX_LINE_BYTES = 8 * 1024
"""Nor is one with a longer status or header line. All lines together are a MiB then, which the parser holds twice until
the answer has been read; times the requests under way it is what targets can make an executor hold."""
_READ_BYTES = 64 * 1024
"""What a connection may buffer of an answer before the target has to wait."""
_SWITCHING_PROTOCOLS = 101
_NO_TIMEOUT = ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
"""All timeouts are phases of a call's own deadline."""


class _Dialled(ClientRequest):
    """Where to connect to. Never sent: the connector goes by its host, its port, and whether it asks for TLS."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        """Return the name of its connections in the pool, which each attempt asks for."""
        return super().connection_key


@dataclass(frozen=True, slots=True)
class _Destination:
    """An address, as the connector and the head of a request want to know it."""

    dialled: _Dialled
    start: str
    """The request line, and the Host."""


class TargetResponse:
    """An answer whose head has come; whoever has it releases or closes it."""

    __slots__ = ("_connection", "content", "headers", "status")

    def __init__(
        self, connection: Connection, status: int, headers: CIMultiDictProxy[str], content: StreamReader
    ) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        self.content = content
        """The body, as the target encoded it."""

    @property
    def content_length(self) -> int | None:
        """Return the body's length if the target told it."""
        told = self.headers.get("Content-Length")
        return None if told is None else int(told)

    def require_whole(self) -> None:
        """Tell an answer that ends with its connection, as one without a length does, from one that a reset cut.

        Raises:
            ClientPayloadError: it was cut.
        """
        protocol = self._connection.protocol
        error = None if protocol is None else protocol.exception()
        if not isinstance(error, ClientOSError):
            return
        if "Content-Length" not in self.headers and "Transfer-Encoding" not in self.headers:
            raise ClientPayloadError from error

    def release(self) -> None:
        """Give the connection back; it is closed unless all of the request has left and all of the answer has come."""
        protocol, transport = self._connection.protocol, self._connection.transport
        # A transport takes a good deal before it asks for a pause; over TLS it does not count what lies below it.
        if protocol is not None and (protocol.writing_paused or (transport and transport.get_write_buffer_size())):
            self.close()
        else:
            self._connection.release()

    def close(self) -> None:
        """Close the connection."""
        _hang_up(self._connection)


class TargetWire:
    """The connections to targets. Owns the connector."""

    def __init__(self, connector: GuardedConnector) -> None:
        self._connector = connector
        self._loop = asyncio.get_running_loop()
        # Jobs fire again and again at few addresses.
        self._destination = lru_cache(maxsize=1024)(self._read_destination)

    async def post(self, url: str, lines: list[tuple[str, str]], body: bytes, exchange: Exchange) -> TargetResponse:
        """Send the POST at the instant at which it may leave, and return the head of the answer.

        Raises:
            OSError, ClientError, HttpProcessingError: there is no answer; the exchange knows how far it came.
            InvalidURL, a ClientError: the address cannot be read.
        """
        destination = self._destination(url)
        request = request_head(destination.start, lines, len(body)) + body
        connection = await self._connect(destination.dialled, exchange)
        try:
            return await _answer_to(request, connection)
        except BaseException:
            _hang_up(connection)
            raise

    async def close(self) -> None:
        """Close all connections."""
        await self._connector.close()

    async def _connect(self, dialled: _Dialled, exchange: Exchange) -> Connection:
        """Return a connection from the pool, or a new one, at the instant at which the request may leave."""
        connection = await self._connector.connect(dialled, [], _NO_TIMEOUT)
        exchange.connected()
        try:
            waited = await exchange.wait_for_release()
        except BaseException:
            connection.release()
            raise
        # Nothing of the request has left, so a connection that is of no use any more is replaced: one that the target
        # closed while it was held for the instant, and one on which it said something since the answer before, which
        # would be taken for ours. On a new one that is ours to read: a target that is busy may say so at once.
        if waited and connection.closed:
            connection = await self._instead_of(connection, dialled, exchange)
        while not exchange.dialled and _is_spoilt(connection):
            connection = await self._instead_of(connection, dialled, exchange)
        exchange.leaving()
        return connection

    async def _instead_of(self, connection: Connection, dialled: _Dialled, exchange: Exchange) -> Connection:
        connection.close()
        exchange.connecting()
        return await self._connector.connect(dialled, [], _NO_TIMEOUT)

    def _read_destination(self, text: str) -> _Destination:
        try:
            url = URL(text)
        except ValueError as error:
            # Such as a label that is too long once it is encoded.
            raise InvalidURL("the target") from error
        start = f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n"
        return _Destination(_Dialled(METH_POST, url, loop=self._loop), start)


def _hang_up(connection: Connection) -> None:
    """Close a connection, and send no more of the request, which a transport that is only closed would go on with.

    It would for as long as the target takes to read it, whatever has become of the attempt; and a target that does not
    read would keep it for ever.
    """
    transport = connection.transport
    if transport is not None and transport.get_write_buffer_size():
        transport.abort()
    connection.close()


def _is_spoilt(connection: Connection) -> bool:
    """Return whether a pooled connection would be closed if it were given back now."""
    protocol = connection.protocol
    return protocol is None or protocol.should_close


async def _answer_to(request: bytes, connection: Connection) -> TargetResponse:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None:
        raise ServerDisconnectedError
    protocol.set_response_params(
        read_until_eof=True,
        auto_decompress=False,
        read_bufsize=_READ_BYTES,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
        max_headers=MAX_HEADER_LINES,
    )
    transport.write(request)
    while True:
        message, content = await protocol.read()
        # Those of 1xx but one tell that the answer is still to come.
        if not 100 <= message.code <= 199 or message.code == _SWITCHING_PROTOCOLS:
            return TargetResponse(connection, message.code, message.headers, content)
