"""The due stream as the dispatcher sees it: all shards together, entries in and a backlog out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from punctual.internal.v1.stream_entry_pb2 import StreamEntry

from libs.common.streams.due_stream import DueStream
from services.dispatcher.domain.due_heap import DueEntry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    since = entry.due_time - _EPOCH
    return StreamEntry(
        execution_id=entry.execution_id,
        job_id=entry.job_id,
        # Half of what the message's own conversion takes.
        due_time=Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000),
        trace_parent=entry.trace_parent,
    )
