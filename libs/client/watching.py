"""A watch that outlives its streams: when one breaks, ends or falls silent, the next continues at the resume token.

The server sends a heartbeat every 15 seconds, so silence means a broken stream. It ends a watch whose credential has
expired; one try then shows whether a new one is in its place. An outage is tolerated for a while, measured from the
first failure after the last sign of life; a server that was never reached gets one deadline only, so that a wrong
address shows soon.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from grpc import aio
from punctual.v1.execution_service_pb2 import WatchExecutionsRequest, WatchExecutionsResponse

from libs.client.calls import Calls
from libs.common.errors import PunctualError, UnauthenticatedError, UnavailableError

SILENCE_SECONDS = 45.0
"""Three heartbeats."""
PATIENCE_SECONDS = 300.0
"""How long an outage may last, once the server was reached."""

WatchMethod = aio.UnaryStreamMultiCallable[WatchExecutionsRequest, WatchExecutionsResponse]


async def watch(
    calls: Calls, method: WatchMethod, request: WatchExecutionsRequest
) -> AsyncGenerator[WatchExecutionsResponse, None]:
    """Yield changes, each at least once, until the caller stops.

    Raises:
        PunctualError: what reconnecting does not mend, such as OutOfRangeError for a resume token that is too old, or
            the last UnavailableError of an outage that lasted too long.
    """
    progress = _Progress(calls)
    current = WatchExecutionsRequest()
    current.CopyFrom(request)
    while True:
        failure: PunctualError = UnavailableError("WATCH_ENDED", "the server ended the watch")
        stream = calls.open_stream(method, current)
        try:
            while (change := await stream.take(SILENCE_SECONDS)) is not None:
                progress.reached()
                current.resume_token = change.resume_token or current.resume_token
                if change.HasField("execution"):
                    yield change
        except PunctualError as error:
            failure = error
        finally:
            stream.close()
        wait = progress.failed(failure)
        if wait is None:
            raise failure
        await calls.clock.sleep(wait)


@dataclass(slots=True)
class _Progress:
    """What a watch knows of the server's health."""

    calls: Calls
    ever_reached: bool = False
    failures: int = 0
    outage_begin: float = 0.0

    def reached(self) -> None:
        """Note a sign of life."""
        self.ever_reached = True
        self.failures = 0

    def failed(self, error: PunctualError) -> float | None:
        """Return the wait before the next stream, or None to give up."""
        now = self.calls.clock.monotonic()
        first = not self.failures
        if first:
            self.outage_begin = now
        self.failures += 1
        if isinstance(error, UnauthenticatedError) and self.ever_reached and first:
            return 0.0
        patience = PATIENCE_SECONDS if self.ever_reached else self.calls.deadline_seconds
        return self.calls.retry_policy.delay(
            error, failures=self.failures, remaining=self.outage_begin + patience - now, spread=self.calls.spread()
        )
