"""The loop under every background duty: run once, wait, run again, until the process stops.

A failure ends no loop: it is logged when it changes (not once a second for an hour), and the wait doubles up to a
bound. Cancellation always passes through. A duty is a `run_once` coroutine that tests call directly; this shell is all
that stands around it. A run that hangs is seen by the heartbeat, which a liveness check reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from libs.common.clock import Clock
from libs.common.errors import PunctualError
from libs.common.exception_text import describe
from libs.common.lifecycle import first_of
from libs.common.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The waits after failures: `first_seconds`, doubling, never more than `most_seconds`."""

    first_seconds: float = 0.05
    most_seconds: float = 2.0

    def wait_seconds(self, failures: int) -> float:
        """Return the wait after that many failures in a row, one or more."""
        doublings = min(failures - 1, 32)
        return min(self.first_seconds * float(2**doublings), self.most_seconds)


class Heartbeat:
    """A loop's sign of life: when it last began a run."""

    def __init__(self, clock: Clock, max_age_seconds: float = 30.0) -> None:
        self._clock = clock
        self._max_age = max_age_seconds
        self._last = clock.monotonic()

    def beat(self) -> None:
        """Note that the loop is alive."""
        self._last = self._clock.monotonic()

    def age_seconds(self) -> float:
        """Return how long ago the last sign of life was."""
        return self._clock.monotonic() - self._last

    def check(self) -> str | None:
        """Return why the loop counts as dead, or None; fits `HealthReporter.add_check`."""
        age = self.age_seconds()
        return None if age <= self._max_age else f"no sign of life for {age:.0f} s"


async def run_forever(
    name: str,
    run_once: Callable[[], Awaitable[object]],
    *,
    interval: float,
    stopping: asyncio.Event,
    clock: Clock,
    heartbeat: Heartbeat | None = None,
    backoff: Backoff = Backoff(),
    translate: Callable[[Exception], PunctualError | None] = lambda _error: None,
) -> None:
    """Call `run_once` again and again, `interval` seconds from begin to begin, until `stopping` is set.

    So duties of one interval that began together stay together, and what one of them wakes is awake for the next. A run
    that takes long is followed by half an interval all the same.

    A run that has begun is never cut by `stopping`, so that what it acquired is not lost on the way; a wait is cut at
    once. `translate` makes a library's error that means something known, such as a database that is away, into ours.
    """
    failures = 0
    last_failure = ""
    while not stopping.is_set():
        if heartbeat is not None:
            heartbeat.beat()
        began = clock.monotonic()
        try:
            await run_once()
        except Exception as error:  # noqa: BLE001 - a duty outlives every failure of one run
            failures += 1
            wait = max(interval, backoff.wait_seconds(failures))
            last_failure = _log_failure(name, translate(error) or error, failures, last_failure)
        else:
            if failures:
                log.info("loop.recovered", loop=name, failures=failures)
            failures, last_failure = 0, ""
            wait = max(began + interval - clock.monotonic(), interval / 2)
        await pause(wait, stopping, clock)


async def pause(seconds: float, stopping: asyncio.Event, clock: Clock) -> None:
    """Wait that many seconds, or until `stopping` is set."""
    if seconds <= 0:
        await clock.sleep(0)
    elif not stopping.is_set():
        await first_of(clock.sleep(seconds), stopping.wait())


def _log_failure(name: str, error: Exception, failures: int, last_failure: str) -> str:
    """Log the failure if it is another than the last one, and return what tells it apart."""
    known = isinstance(error, PunctualError)
    failure = error.reason if isinstance(error, PunctualError) else type(error).__name__
    if failure != last_failure:
        # A known error is a sentence that explains itself; of an unknown one only the traceback tells where it came
        # from.
        log.warning(
            "loop.failed",
            loop=name,
            reason=failure,
            error=str(error) if known else describe(error),
            failures=failures,
            exc_info=None if known else error,
        )
    return failure
