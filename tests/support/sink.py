"""The target of the tests: notes each request durably, on arrival, before it answers; no fault is ever injected here.

Run as a process of its own (`python -m tests.support.sink --port N --notes FILE`), so that no fault of the system under
test reaches it. Each note is a JSON line: execution id, attempt, wall-clock arrival in seconds, path. The path says how
to answer: /ok at once, /slow/MILLIS after a while, /status/CODE, /flaky/N with 503 to the first N requests of an
execution, /close/N with a closed connection and no answer to the first N, /large/KILOBYTES with that much. It listens
on 127.0.0.1 and on 127.0.0.2, so that targets which fail can have a host, and so a circuit, of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as the sink saw it."""

    execution_id: str
    attempt: int
    at: float
    path: str


def read_notes(notes: Path, offset: int = 0) -> list[Arrival]:
    """Return what has arrived so far, from a byte on; a line that is still being written is left for the next time."""
    if not notes.exists():
        return []
    with notes.open(encoding="utf-8") as file:
        file.seek(offset)
        lines = file.read().split("\n")[:-1]
    return [Arrival(**json.loads(line)) for line in lines]


class Sink:
    """Notes and answers."""

    def __init__(self, notes: Path) -> None:
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._seen: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.Response:
        """Note the request, then answer as its path says."""
        arrived = time.time()
        execution_id = request.headers.get("Idempotency-Key", "")
        note = {
            "execution_id": execution_id,
            "attempt": int(request.headers.get("Punctual-Attempt", "0")),
            "at": arrived,
            "path": request.path,
        }
        os.write(self._notes, (json.dumps(note) + "\n").encode())
        await request.read()
        self._seen[execution_id] += 1
        match request.path.strip("/").split("/"):
            case ["slow", millis]:
                await asyncio.sleep(int(millis) / 1000)
            case ["status", code]:
                return web.json_response({"status": code}, status=int(code))
            case ["flaky", times] if self._seen[execution_id] <= int(times):
                return web.json_response({"status": "not yet"}, status=503)
            case ["large", kilobytes]:
                # By chance, so that no compression makes it small.
                return web.Response(text=os.urandom(512 * int(kilobytes)).hex())
            case ["close", times] if self._seen[execution_id] <= int(times) and request.transport is not None:
                request.transport.abort()
        return web.json_response({"answer": execution_id})


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--notes", type=Path, required=True)
    arguments = parser.parse_args()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", Sink(arguments.notes).handle)
    hosts = ["127.0.0.1", "127.0.0.2"]
    web.run_app(app, host=hosts, port=arguments.port, print=None, access_log=None, backlog=4096)


if __name__ == "__main__":
    main()
