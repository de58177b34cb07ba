"""The executor's part of each execution's trace: begin, wait, POST and report, children of what the scheduler began.

These wrap the ports, and only where traces are collected, so that the use cases know nothing of them. The target gets
the POST's own traceparent and continues the trace from there. Spans carry ids and numbers; no address beyond the host,
no header, no body.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue
from yarl import URL

from libs.common.tracing import format_trace_parent, parse_trace_parent, record_span
from services.executor.domain.answer import AnswerSource
from services.executor.domain.attempt import Grant, Lease
from services.executor.domain.report import CallProgress, CallResult, Report, Result
from services.executor.usecases.ports import (
    AttemptService,
    Extensions,
    GrantBatch,
    ObservedHost,
    PollMode,
    Release,
    ReportVerdict,
    TargetCaller,
    at_once,
)

MAX_OPEN = 20_000
"""Attempts whose trace is remembered until their report; the oldest is forgotten first."""


@dataclass(frozen=True, slots=True)
class _Open:
    """An attempt between its grant and its report."""

    context: Context
    granted_nanos: int


class AttemptTraces:
    """What wraps the ports, and what they share: the open attempts by lease."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self._open: OrderedDict[Lease, _Open] = OrderedDict()

    def service(self, service: AttemptService) -> AttemptService:
        """Return the scheduler with its calls traced."""
        return _TracedService(self, service)

    def caller(self, caller: TargetCaller) -> TargetCaller:
        """Return the HTTP edge with its POSTs traced."""
        return _TracedCaller(self, caller)

    def granted(self, grants: Sequence[Grant], asked_nanos: int, path: str) -> None:
        """Record the begin of attempts, and remember them."""
        now = time.time_ns()
        for grant in grants:
            context = parse_trace_parent(grant.trace_parent)
            if context is None:
                continue
            attributes = {**_ids(grant), "punctual.delivery_path": path}
            record_span(self.tracer, "begin", context, (asked_nanos, now), attributes)
            self._open[grant.lease] = _Open(context, now)
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)

    def find(self, lease: Lease) -> _Open | None:
        """Return an open attempt."""
        return self._open.get(lease)

    def reported(self, reports: Sequence[Report], asked_nanos: int) -> None:
        """Record the reports of attempts, and forget them."""
        now = time.time_ns()
        for report in reports:
            attempt = self._open.pop(report.lease, None)
            if attempt is not None:
                attributes = {"punctual.result": report.result.name}
                record_span(self.tracer, "report", attempt.context, (asked_nanos, now), attributes)


class _TracedCaller:
    """Implements `TargetCaller`."""

    def __init__(self, traces: AttemptTraces, caller: TargetCaller) -> None:
        self._traces = traces
        self._caller = caller

    async def call(self, grant: Grant, progress: CallProgress, release: Release = at_once) -> CallResult:
        """Record the wait, which ends at the due instant, and make the POST under a span of its own."""
        attempt = self._traces.find(grant.lease)
        if attempt is None:
            return await self._caller.call(grant, progress, release)
        tracer, start = self._traces.tracer, max(time.time_ns(), round(grant.due_time.timestamp() * 1e9))
        record_span(tracer, "wait", attempt.context, (attempt.granted_nanos, start), {})
        attributes = {**_ids(grant), "http.request.method": "POST", "server.address": _host(grant.request.url)}
        span = tracer.start_span("POST", attempt.context, kind=SpanKind.CLIENT, start_time=start, attributes=attributes)
        try:
            call = await self._caller.call(replace(grant, trace_parent=format_trace_parent(span)), progress, release)
            if call.status_code:
                span.set_attribute("http.response.status_code", call.status_code)
            if call.error_reason:
                span.set_attribute("error.type", call.error_reason)
        except BaseException:
            span.set_status(Status(StatusCode.ERROR))
            raise
        else:
            if call.result is not Result.ANSWERED or not 200 <= call.status_code <= 299:
                span.set_status(Status(StatusCode.ERROR))
            return call
        finally:
            # What failed while it got ready ends as it would have begun.
            span.end(max(time.time_ns(), start))


class _TracedService:
    """Implements `AttemptService`."""

    def __init__(self, traces: AttemptTraces, service: AttemptService) -> None:
        self._traces = traces
        self._service = service

    async def begin(self, request_id: str, execution_ids: Sequence[str]) -> GrantBatch:
        """Ask for attempts of delivered executions."""
        asked = time.time_ns()
        batch = await self._service.begin(request_id, execution_ids)
        self._traces.granted(batch.grants, asked, "STREAM")
        return batch

    async def poll(self, request_id: str, max_attempts: int, mode: PollMode, *, repetition: bool) -> GrantBatch:
        """Ask for attempts that no delivery reached."""
        asked = time.time_ns()
        batch = await self._service.poll(request_id, max_attempts, mode, repetition=repetition)
        self._traces.granted(batch.grants, asked, "POLL")
        return batch

    async def extend(self, leases: Sequence[Lease]) -> Extensions:
        """Renew leases."""
        return await self._service.extend(leases)

    async def report(self, reports: Sequence[Report]) -> Sequence[ReportVerdict]:
        """Report outcomes."""
        asked = time.time_ns()
        verdicts = await self._service.report(reports)
        self._traces.reported(reports, asked)
        return verdicts

    async def report_hosts(self, hosts: Sequence[ObservedHost]) -> None:
        """Report what was seen of target hosts."""
        await self._service.report_hosts(hosts)

    async def upload(self, lease: Lease, encoding: str, source: AnswerSource) -> str:
        """Store a large answer."""
        return await self._service.upload(lease, encoding, source)


def _host(url: str) -> str:
    try:
        return URL(url).host or ""
    except ValueError:
        return ""


def _ids(grant: Grant) -> dict[str, AttributeValue]:
    return {
        "punctual.execution_id": grant.lease.execution_id,
        "punctual.job_id": grant.job_id,
        "punctual.org_id": grant.org_id,
        "punctual.attempt": grant.attempt_number,
    }
