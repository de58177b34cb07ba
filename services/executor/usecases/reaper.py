"""Clears the streams of what dead consumers left behind.

The entries are dropped, not run: their executions are overdue by then and come by the poll path, which asks the
database instead of trusting an old hint.
"""

from __future__ import annotations

from libs.common.logs import get_logger
from services.executor.usecases.ports import Deliveries

log = get_logger(__name__)


class Reaper:
    """Goes over all shards, one after the other."""

    def __init__(self, deliveries: Deliveries, shards: int) -> None:
        self._deliveries = deliveries
        self._shards = shards

    async def run_once(self) -> int:
        """Reap every shard once, and return how many entries were dropped.

        Raises:
            UnavailableError: Redis is away; the next pass begins anew.
        """
        dropped = 0
        for shard in range(self._shards):
            dropped += await self._deliveries.reap(shard)
        if dropped:
            log.info("deliveries.reaped", entries=dropped)
        return dropped
