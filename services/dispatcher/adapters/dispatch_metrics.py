"""Shows what the dispatcher holds and how full the stream is."""

from __future__ import annotations

from collections.abc import Callable

from libs.common.errors import UnavailableError
from libs.common.metrics import Metrics
from libs.common.streams.due_stream import DueStream


class DispatchMetrics:
    """Levels of this dispatcher, read at each scrape, and of the stream, looked at now and then.

    Every dispatcher sees the whole of the stream, so of those levels the largest counts.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._depth = metrics.gauge(
            "stream_depth_entries", "Entries on the stream in all shards, those under way included.", across="max"
        )
        self._lag = metrics.gauge(
            "stream_lag_entries", "Entries on the stream that no executor has taken yet: consumer lag.", across="max"
        )
        self._keys = metrics.gauge("redis_keys", "Keys in Redis, ours and others.", across="max")
        self._up = metrics.gauge(
            "redis_up", "1 while Redis answers this process, else 0.", ("service",), across="min"
        ).labels("dispatcher")
        self._partitions = metrics.gauge("partitions_held", "Partitions under a lease of this dispatcher.")
        self._entries = metrics.gauge("dispatcher_held_entries", "Acquired entries that are not on the stream yet.")
        self._dropped = metrics.gauge(
            "dispatcher_dropped_entries", "Entries left to the poll path since the start, because Redis was away."
        )
        self._offset = metrics.gauge(
            "clock_offset_seconds", "The scheduler's clock minus this process's.", ("service",), across="max"
        ).labels("dispatcher")

    def show(
        self,
        *,
        partitions: Callable[[], int],
        entries: Callable[[], int],
        dropped: Callable[[], int],
        clock_offset: Callable[[], float],
    ) -> None:
        """Read these at each scrape."""
        self._partitions.set_function(partitions)
        self._entries.set_function(entries)
        self._dropped.set_function(dropped)
        self._offset.set_function(clock_offset)

    async def look(self, stream: DueStream) -> None:
        """Look at the stream once; what is not known while Redis is away stays as it was seen last.

        Raises:
            UnavailableError: Redis is away.
        """
        shards = range(stream.shards)
        try:
            self._depth.set(sum([await stream.depth(shard) for shard in shards]))
            self._lag.set(sum([await stream.backlog(shard) for shard in shards]))
            self._keys.set(await stream.count_keys())
        except UnavailableError:
            self._up.set(0)
            raise
        self._up.set(1)
