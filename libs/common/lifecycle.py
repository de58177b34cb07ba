"""A process's life: start on the fastest loop there is, run until told to stop, drain within a deadline.

`run(main)` is all that a `__main__` needs. `main` gets an event that SIGTERM or SIGINT sets; it then hands back its
work and returns. If it takes longer than the drain deadline, it is cancelled and the process exits with code 1: what
it held is found again by lease expiry and the poll path. A second signal cancels at once. A failure is the last line of
the log, and the exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from libs.common.exception_text import describe, first_of_group
from libs.common.logs import get_logger

Main = Callable[[asyncio.Event], Coroutine[Any, Any, None]]

EXIT_DRAIN_TIMED_OUT = 1
EXIT_FAILED = 1
_COLLECT_AFTER_OBJECTS = 20_000

log = get_logger(__name__)


def run(main: Main, *, drain_seconds: float = 20.0) -> None:
    """Run the process's main to its end, on uvloop where that exists.

    Exits with code 1 if it failed, or if draining had to be cut.
    """
    _collect_rarely()
    _open_many_files()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            drained = runner.run(run_until_stopped(main, drain_seconds=drain_seconds))
    except Exception as error:
        # Python's own traceback would stand beside the log, and quote what the log withholds.
        log.exception("process.failed", error=describe(first_of_group(error)))
        raise SystemExit(EXIT_FAILED) from error
    if not drained:
        raise SystemExit(EXIT_DRAIN_TIMED_OUT)


async def run_until_stopped(main: Main, *, drain_seconds: float) -> bool:
    """Run `main` until it returns or has been told to stop; return False if it did not drain in time.

    An exception of `main` is raised here.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    task = loop.create_task(main(stopping), name="main")

    def stop(name: str) -> None:
        if stopping.is_set():
            log.warning("process.stop_repeated", signal=name)
            task.cancel()
            return
        log.info("process.stopping", signal=name, drain_seconds=drain_seconds)
        stopping.set()

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop, number.name)
    try:
        return await _drained(task, stopping, drain_seconds)
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _drained(task: asyncio.Task[None], stopping: asyncio.Event, drain_seconds: float) -> bool:
    """Wait for the task; once stopping is set, only as long as draining may take."""
    try:
        await first_of(task, stopping.wait())
        done, _ = await asyncio.wait({task}, timeout=drain_seconds)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        raise
    if not done:
        log.error("process.drain_timed_out", drain_seconds=drain_seconds)
        task.cancel()
        await asyncio.wait({task})
    if task.cancelled():
        return False
    task.result()
    return bool(done)


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Return when the first is done, whatever came of it; coroutines among them are cancelled then, tasks are not."""
    tasks: list[asyncio.Future[object]] = [asyncio.ensure_future(item) for item in awaitables]
    own = [task for task, item in zip(tasks, awaitables, strict=True) if task is not item]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in own:
            task.cancel()
        if own:
            # A cancelled wait must have ended before the caller goes on, or it could swallow the next wake-up.
            await asyncio.wait(own)


def _collect_rarely() -> None:
    """Look for cyclic garbage less often than Python's default, and never among what was imported.

    A busy process makes a few hundred objects for each execution and few cycles; the default looked through them after
    every 700, and through all modules now and then, which took a tenth of its time and held up what was due.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS, 20, 50)


def _open_many_files() -> None:
    """Raise the limit of open files as far as this process may: many systems begin at 1,024, for programs of old.

    Idle connections to targets are kept for a while, and nothing else bounds how many targets there are.
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - it does not exist on every platform

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems know a lower bound of their own.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory; None, the standard loop, where uvloop does not exist."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - it cannot be imported on every platform

    return uvloop.new_event_loop
