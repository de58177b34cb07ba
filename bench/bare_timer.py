"""The least lag that this machine allows: prepared requests, written to one open connection at prepared instants.

It runs beside a system under test, on the same alarm as an executor's, and does nothing else; what it is late by are
the waits for a core, its own and the target's. The sink notes each request by its due time.

Run as a process of its own: `python -m bench.bare_timer --port N --due FILE`, where the file is a JSON list of
nanoseconds since the epoch, ascending.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import uvloop

from services.executor.adapters.due_alarm import make_alarm
from tools.devstack.ports import LOOPBACK

_LAST_ANSWER_SECONDS = 0.5


class Timer(asyncio.Protocol):
    """The connection, and what is still to be written to it."""

    def __init__(self, due: Sequence[int]) -> None:
        self._left = deque((at, _request(at)) for at in due)
        self._alarm = make_alarm(self._ring)
        self.done = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait."""
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._ring()

    def _ring(self) -> None:
        while self._left and self._left[0][0] <= time.time_ns():
            self._transport.write(self._left.popleft()[1])
        if self._left:
            self._alarm.set((self._left[0][0] - time.time_ns()) / 1e9)
        else:
            self.done.set()


def _request(at: int) -> bytes:
    return f"POST / HTTP/1.1\r\nHost: bare\r\nIdempotency-Key: {at}\r\nContent-Length: 2\r\n\r\n{{}}".encode()


async def run(port: int, due: Sequence[int]) -> None:
    """Write all of them."""
    _, timer = await asyncio.get_running_loop().create_connection(lambda: Timer(due), LOOPBACK, port)
    await timer.done.wait()
    await asyncio.sleep(_LAST_ANSWER_SECONDS)


def main() -> None:
    """Run the timer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--due", type=Path, required=True)
    arguments = parser.parse_args()
    uvloop.run(run(arguments.port, json.loads(arguments.due.read_text())))


if __name__ == "__main__":
    main()
