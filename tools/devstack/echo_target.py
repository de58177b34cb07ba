"""A small API to POST to: answers any path with what it received.

    python -m tools.devstack.echo_target --port 7410

The answer is JSON: `echo` is the prompt, or the whole body when it has none; `received_at` the UTC instant at which the
request was read; `idempotency_key` the header of that name. One line is printed for each request.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tools.devstack.ports import LOOPBACK

LARGEST_BODY_BYTES = 1024 * 1024


async def echo(request: web.Request) -> web.Response:
    """Answer with what was received; a body that is not JSON is echoed as text."""
    received_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    text = await request.text()
    try:
        body: Any = json.loads(text)
    except json.JSONDecodeError:
        body = text
    key = request.headers.get("Idempotency-Key", "")
    print(f"POST {request.path} {key}", flush=True)
    received = body.get("prompt", body) if isinstance(body, dict) else body
    return web.json_response({"echo": received, "received_at": received_at, "idempotency_key": key})


def build_app() -> web.Application:
    """Return the application, for this program and for tests that serve it themselves."""
    app = web.Application(client_max_size=LARGEST_BODY_BYTES)
    app.router.add_post("/{path:.*}", echo)
    return app


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description="A small API to POST to: answers with what it received.")
    parser.add_argument("--port", type=int, required=True, help="the loopback port to listen on")
    # access_log=None: `echo` prints its own, shorter line.
    web.run_app(build_app(), host=LOOPBACK, port=parser.parse_args().port, access_log=None)


if __name__ == "__main__":
    main()
