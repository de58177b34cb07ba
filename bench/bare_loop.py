"""The least that making the POSTs can cost in this language: an aiohttp loop that sends, reads, and does nothing else.

Run as a process of its own: `python -m bench.bare_loop --target URL --count N --concurrency N`; prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time

import aiohttp
import uvloop

from bench.cpu import usage_of

BODY = b'{"prompt":"What is the state of burst-0?"}'


async def run(target: str, count: int, concurrency: int) -> dict[str, float]:
    """Make the POSTs; return how fast, and at what CPU."""
    numbers = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def lane() -> None:
            for number in numbers:
                headers = {"Content-Type": "application/json", "Idempotency-Key": f"bare-{number}"}
                async with session.post(target, data=BODY, headers=headers) as answer:
                    await answer.read()

        cpu, began = usage_of(os.getpid()).cpu_seconds, time.perf_counter()
        await asyncio.gather(*(lane() for _ in range(concurrency)))
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "cpu_seconds": usage_of(os.getpid()).cpu_seconds - cpu}


def main() -> None:
    """Run the loop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    arguments = parser.parse_args()
    print(json.dumps(uvloop.run(run(arguments.target, arguments.count, arguments.concurrency))))


if __name__ == "__main__":
    main()
