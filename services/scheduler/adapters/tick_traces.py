"""The scheduler's part of each execution's trace: its begin, in the tick that materializes it, and each later takeover.

The execution of a one-time job, and one that a caller asked for, continue the trace of that call. Each fire of a
recurring job has a trace of its own, or the trace of one call would grow for years; it links the call that created the
job. What samples decide here holds for the whole trace, since the traceparent that is stored carries it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from libs.common.tracing import format_trace_parent, parse_trace_parent, record_span, trace_id_of
from services.scheduler.domain.execution import Execution, ExecutionState
from services.scheduler.usecases.ports.job_store import DueJob


class TickTraces:
    """Implements `TickObserver`; made only where traces are collected."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def began(self, fires: Sequence[tuple[DueJob, Execution]]) -> tuple[list[Execution], list[Span]]:
        """Begin the traces of new executions; return them with their traceparents, and the spans to end."""
        executions: list[Execution] = []
        spans: list[Span] = []
        for job, execution in fires:
            if execution.state is not ExecutionState.READY:
                executions.append(execution)
                continue
            span = self._begin(job, execution)
            spans.append(span)
            trace_parent = format_trace_parent(span)
            executions.append(replace(execution, trace_parent=trace_parent, trace_id=trace_id_of(trace_parent)))
        return executions, spans

    def ended(self, spans: Sequence[Span], waited: Sequence[Execution], began: datetime) -> None:
        """End the spans of a tick, and record it for executions whose wait it ended."""
        start, now = int(began.timestamp() * 1e9), time.time_ns()
        for span in spans:
            span.end(now)
        for execution in waited:
            context = parse_trace_parent(execution.trace_parent)
            if context is not None:
                record_span(self._tracer, "acquire", context, (start, now), _attributes(execution))

    def _begin(self, job: DueJob, execution: Execution) -> Span:
        parent = parse_trace_parent(execution.trace_parent)
        if parent is not None:
            return self._tracer.start_span("acquire", parent, kind=SpanKind.CONSUMER, attributes=_attributes(execution))
        creation = parse_trace_parent(job.trace_parent)
        links = [] if creation is None else [Link(trace.get_current_span(creation).get_span_context())]
        # An empty context: the tick runs inside a dispatcher's call, which is no part of this trace.
        return self._tracer.start_span(
            "acquire", Context(), kind=SpanKind.CONSUMER, links=links, attributes=_attributes(execution)
        )


def _attributes(execution: Execution) -> dict[str, AttributeValue]:
    return {
        "punctual.execution_id": execution.execution_id,
        "punctual.job_id": execution.job_id,
        "punctual.org_id": execution.org_id,
        "punctual.cause": execution.cause.value,
        "punctual.due_time": execution.due_time.isoformat(),
    }
