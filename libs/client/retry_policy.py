"""Decides whether a failed call is tried again, and after which wait; a pure function of what happened.

Only calls that may be repeated are (`repeatable.py`), and only after two errors: UNAVAILABLE, and a RESOURCE_EXHAUSTED
that says when to come back. The call's deadline is the bound: a wait that would reach past it is not begun, so that
the caller gets the true error instead of a DEADLINE_EXCEEDED.
"""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.errors import PunctualError, ResourceExhaustedError, RetryableError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait between tries, in seconds."""

    initial_backoff: float = 0.1
    """The largest wait before the second try; it doubles with each further one."""
    max_backoff: float = 2.0
    """The largest wait that the backoff makes. A server's RetryInfo may ask for more."""

    def delay(self, error: PunctualError, *, failures: int, remaining: float, spread: float) -> float | None:
        """Return the wait before the next try, or None to give up.

        `failures` counts this one too, `remaining` is the time left, `spread` a random number from 0 to 1: half of
        each backoff is random, so that callers who failed together do not come back together.
        """
        if not isinstance(error, RetryableError):
            return None
        told = error.retry_after_seconds
        if isinstance(error, ResourceExhaustedError) and told is None:
            return None
        backoff = min(self.initial_backoff * 2.0 ** min(failures - 1, 30), self.max_backoff)
        wait = (told or 0.0) + backoff * (1 + spread) / 2
        return wait if wait < remaining else None
