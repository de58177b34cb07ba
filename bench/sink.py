"""The target of the benchmarks: a process of its own, fast enough never to be the bottleneck.

It speaks just enough HTTP/1.1 for the POSTs of the systems under test: one request after the other on a kept
connection, each with a Content-Length. Of each it notes the wall clock on arrival and the Idempotency-Key, in memory;
`GET /notes` hands the notes out as lines `<nanoseconds> <key>` and forgets them. Clients that send no such header are
noted by the last path segment.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import ClassVar, cast

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
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request that has arrived."""
        arrived = time.time_ns()
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            lower = head.lower()
            length = int(_header(lower, _LENGTH) or b"0")
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(arrived, head, lower)

    def _answer(self, arrived: int, head: bytes, lower: bytes) -> None:
        if self._transport is None:
            return
        if head.startswith(b"GET /notes"):
            body = b"\n".join(b"%d %s" % note for note in self.notes)
            self.notes.clear()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        start, end = _span(lower, _KEY)
        # Ids keep their capitals.
        key = head[start:end].strip() if start >= 0 else head.split(b" ", 2)[1].rpartition(b"/")[2]
        self.notes.append((arrived, key))
        self._transport.write(_ANSWER)


def _span(head: bytes, name: bytes) -> tuple[int, int]:
    start = head.find(name)
    if start < 0:
        return -1, -1
    start += len(name)
    end = head.find(b"\r\n", start)
    return start, end if end >= 0 else len(head)


def _header(head: bytes, name: bytes) -> bytes:
    start, end = _span(head, name)
    return head[start:end].strip() if start >= 0 else b""


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
