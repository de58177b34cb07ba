"""Asks Redis whether it may throw our keys away, and keeps a service from being ready while it may.

The stream is a buffer that may be lost at any time; one that is lost again and again, whenever memory runs short, would
turn the poll path into the only delivery without anybody noticing. While Redis is away nothing is known, and nothing is
held against it: work goes on by the poll path then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

CHECK_INTERVAL_SECONDS = 10.0
SAFE_POLICY = "noeviction"


class EvictionCheck:
    """Remembers what Redis said last; `run_once` is a background duty, `check` fits a readiness check."""

    def __init__(self, read_policies: Callable[[], Awaitable[set[str]]]) -> None:
        """Take what returns the maxmemory policies of all nodes, such as `DueStream.eviction_policies`."""
        self._read_policies = read_policies
        self._evicting: list[str] = []

    async def run_once(self) -> None:
        """Ask once.

        Raises:
            UnavailableError: Redis is away; what it said last stands.
        """
        self._evicting = sorted(await self._read_policies() - {SAFE_POLICY})

    def check(self) -> str | None:
        """Return what has to be set, or None."""
        if not self._evicting:
            return None
        found = ", ".join(self._evicting)
        return f"Redis may evict the stream: maxmemory-policy is {found}; set it to {SAFE_POLICY}"
