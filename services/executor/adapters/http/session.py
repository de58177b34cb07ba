"""The one HTTP session of an executor: pooled, without cookies, proxies, decompression or timeouts of aiohttp's own."""

from __future__ import annotations

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar

from services.executor.adapters.http.guarded_connector import GuardedConnector

MAX_HEADER_LINES = 128
"""An answer with more header lines than this is none."""
MAX_LINE_BYTES = 32 * 1024
"""Nor is one with a longer status or header line."""
_READ_BYTES = 64 * 1024
"""What a connection may buffer of an answer before the target has to wait."""


def open_session(connector: GuardedConnector) -> ClientSession:
    """Return the session; it owns the connector, and connects nothing yet."""
    return ClientSession(
        connector=connector,
        cookie_jar=DummyCookieJar(),
        # Each call brings its own.
        timeout=ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_READ_BYTES,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
        max_headers=MAX_HEADER_LINES,
    )
