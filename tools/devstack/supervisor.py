"""Keeps a child running: one that ends is started again, after a wait that grows while it keeps ending.

The wait is bounded both ways, so that a service that cannot start neither spins nor is given up.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

from tools.devstack.process import ChildProcess, LineSink

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 5.0
# A child that ran this long was well: its next end starts the waits anew.
STEADY_SECONDS = 10.0


def wait_before_restart(previous_wait: float, ran_seconds: float) -> float:
    """Return how long to wait after a child ended that had run for `ran_seconds`."""
    if previous_wait == 0 or ran_seconds >= STEADY_SECONDS:
        return FIRST_WAIT_SECONDS
    return min(2 * previous_wait, LONGEST_WAIT_SECONDS)


async def keep_running(child: ChildProcess, say: LineSink) -> NoReturn:
    """Restart a started child whenever it ends, until cancelled. The child itself is left as it is then."""
    loop = asyncio.get_running_loop()
    wait = 0.0
    while True:
        started = loop.time()
        code = await child.wait()
        wait = wait_before_restart(wait, loop.time() - started)
        say(f"{child.name} ended with code {code}; starting it again in {wait:g} s")
        await asyncio.sleep(wait)
        child.start()
