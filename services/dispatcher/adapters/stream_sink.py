"""The due stream as the dispatcher sees it: all shards together, entries in and a backlog out."""

from __future__ import annotations

from collections.abc import Sequence

from punctual.internal.v1.stream_entry_pb2 import StreamEntry

from libs.common.rpc.timestamps import to_timestamp
from libs.common.streams.due_stream import DueStream
from services.dispatcher.domain.due_heap import DueEntry


class StreamSink:
    """Implements the `Stream` port."""

    def __init__(self, stream: DueStream) -> None:
        self._stream = stream

    async def add(self, entries: Sequence[DueEntry]) -> None:
        """Append the entries in one round trip."""
        await self._stream.add([(entry.partition, _encode(entry)) for entry in entries])

    async def backlog(self) -> int:
        """Return how many entries no executor has taken yet."""
        return sum([await self._stream.backlog(shard) for shard in range(self._stream.shards)])


def _encode(entry: DueEntry) -> StreamEntry:
    return StreamEntry(
        execution_id=entry.execution_id,
        job_id=entry.job_id,
        due_time=to_timestamp(entry.due_time),
        trace_parent=entry.trace_parent,
    )
