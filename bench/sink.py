"""The target of the benchmarks: a process of its own, fast enough never to be the bottleneck.

It speaks just enough HTTP/1.1 for our own POSTs: one request after the other on a kept connection, each with a
Content-Length. Of each it notes the wall clock on arrival and the Idempotency-Key, in memory; `GET /notes` hands the
notes out as lines `<nanoseconds> <key>` and forgets them. Clients that send no such header are noted by the last path
segment.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import ClassVar

import uvloop

_KEY = b"\r\nidempotency-key:"
_LENGTH = b"\r\ncontent-length:"
_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"answer":"ok"}'


class SinkProtocol(asyncio.Protocol):
    """One connection."""

    notes: ClassVar[list[tuple[int, bytes]]] = []

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request that has arrived."""
        arrived = time.time_ns()
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            if head.startswith(b"GET /notes"):
                self._hand_out()
                self._buffer = self._buffer[end + 4 :]
                continue
            lower = head.lower()
            length = int(_header(lower, _LENGTH) or b"0")
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            key = _header(lower, _KEY)
            if not key:
                key = head.split(b" ", 2)[1].rpartition(b"/")[2]
            self.notes.append((arrived, key))
            assert self._transport is not None
            self._transport.write(_ANSWER)

    def _hand_out(self) -> None:
        body = b"\n".join(b"%d %s" % note for note in self.notes)
        self.notes.clear()
        assert self._transport is not None
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def _header(head: bytes, name: bytes) -> bytes:
    start = head.find(name)
    if start < 0:
        return b""
    start += len(name)
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


async def serve(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(SinkProtocol, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Run the sink."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
