"""The dispatcher's part of each execution's trace: a span from the scheduler's answer until the entry is on the stream.

It wraps the ports, and only where traces are collected. The stream entry carries the span's traceparent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from opentelemetry.trace import Span, SpanKind, Tracer

from libs.common.tracing import format_trace_parent, parse_trace_parent
from services.dispatcher.domain.due_heap import DueEntry
from services.dispatcher.usecases.ports import Acquired, PartitionLease, Scheduler, Stream

MAX_OPEN = 20_000
"""Entries whose span is kept open; the oldest ends first, as one that was dropped and left to the poll path."""


class DispatchTraces:
    """What wraps the ports, and the spans that are open between them."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: OrderedDict[str, Span] = OrderedDict()

    def scheduler(self, scheduler: Scheduler) -> Scheduler:
        """Return the scheduler, whose answers begin spans."""
        return _TracedScheduler(self, scheduler)

    def stream(self, stream: Stream) -> Stream:
        """Return the stream, onto which a span ends."""
        return _TracedStream(self, stream)

    def began(self, entry: DueEntry) -> DueEntry:
        """Begin the span of an entry that was acquired; return the entry with the span's traceparent."""
        context = parse_trace_parent(entry.trace_parent)
        if context is None:
            return entry
        span = self._tracer.start_span(
            "dispatch",
            context,
            kind=SpanKind.PRODUCER,
            attributes={"punctual.execution_id": entry.execution_id, "punctual.partition": entry.partition},
        )
        self._open[entry.execution_id] = span
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)[1].end()
        return replace(entry, trace_parent=format_trace_parent(span))

    def delivered(self, entry: DueEntry) -> None:
        """End the span of an entry that is on the stream."""
        span = self._open.pop(entry.execution_id, None)
        if span is not None:
            span.end()


class _TracedScheduler:
    """Implements `Scheduler`."""

    def __init__(self, traces: DispatchTraces, scheduler: Scheduler) -> None:
        self._traces = traces
        self._scheduler = scheduler

    async def acquire_due(
        self, partitions: Sequence[int], *, horizon_seconds: float, limit: int, wait_seconds: float
    ) -> Acquired:
        """Materialize and return what comes due within the horizon."""
        acquired = await self._scheduler.acquire_due(
            partitions, horizon_seconds=horizon_seconds, limit=limit, wait_seconds=wait_seconds
        )
        return replace(acquired, entries=[self._traces.began(entry) for entry in acquired.entries])

    async def lease_partitions(self, lease_seconds: float) -> PartitionLease:
        """Renew this dispatcher's partitions."""
        return await self._scheduler.lease_partitions(lease_seconds)

    async def release_partitions(self) -> None:
        """Give all partitions back."""
        await self._scheduler.release_partitions()


class _TracedStream:
    """Implements `Stream`."""

    def __init__(self, traces: DispatchTraces, stream: Stream) -> None:
        self._traces = traces
        self._stream = stream

    async def add(self, entries: Sequence[DueEntry]) -> None:
        """Append the entries in one round trip."""
        await self._stream.add(entries)
        for entry in entries:
            self._traces.delivered(entry)

    async def backlog(self) -> int:
        """Return how many entries no executor has taken yet."""
        return await self._stream.backlog()
