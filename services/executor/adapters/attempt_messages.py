"""Grants and reports between protos and the domain's values: everything that knows the wire's field names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.v1 import execution_pb2, job_pb2, target_host_pb2

from libs.common.rpc.timestamps import set_timestamp, to_timestamp
from libs.common.turns import next_turn
from services.executor.adapters.proto_time import instant_of, seconds_of, span_of
from services.executor.domain.answer import RateLimitObservation
from services.executor.domain.attempt import (
    AttemptLimits,
    Grant,
    Header,
    JsonPathEquals,
    JsonPathExists,
    Lease,
    MinSize,
    Refusal,
    ResponseCheck,
    ResponsePolicy,
    TargetRequest,
)
from services.executor.domain.gate_values import CircuitState, DeferReason, from_micros, to_micros
from services.executor.domain.report import Report, ReportedResponse
from services.executor.usecases.ports import GrantBatch, ObservedHost

MESSAGES_A_TURN = 10
"""Read or written in one turn of the event loop, 0.1 ms; an attempt that is due meanwhile starts next."""

_CIRCUITS = {
    CircuitState.CLOSED: target_host_pb2.TargetHost.CIRCUIT_CLOSED,
    CircuitState.OPEN: target_host_pb2.TargetHost.CIRCUIT_OPEN,
    CircuitState.HALF_OPEN: target_host_pb2.TargetHost.CIRCUIT_HALF_OPEN,
}


async def batch_of(message: pb.AttemptBatch) -> GrantBatch:
    """Return what was granted and refused, a few at a time."""
    grants: list[Grant] = []
    for start in range(0, len(message.grants), MESSAGES_A_TURN):
        if start:
            await next_turn()
        grants += map(grant_of, message.grants[start : start + MESSAGES_A_TURN])
    return GrantBatch(
        grants=tuple(grants),
        refusals=tuple(_refusal_of(item) for item in message.refusals),
        lease_seconds=seconds_of(message.lease),
        more=message.more,
    )


def grant_of(message: pb.AttemptGrant) -> Grant:
    """Return one grant."""
    limits = message.limits
    due_time = instant_of(message.due_time)
    return Grant(
        lease=Lease(message.execution_id, message.fencing_token),
        job_id=message.job_id,
        org_id=message.org_id,
        attempt_number=message.attempt_number,
        due_time=due_time,
        # Without jitter they are the same.
        fire_time=due_time if message.fire_time == message.due_time else instant_of(message.fire_time),
        request=_request_of(message.request),
        limits=AttemptLimits(
            limits.job_requests_per_minute,
            limits.host_requests_per_minute,
            limits.host_concurrent_requests,
            limits.host_generation,
        ),
        trace_parent=message.trace_parent,
    )


def lease_message(lease: Lease) -> pb.AttemptLease:
    """Return the lease as a proto."""
    return pb.AttemptLease(execution_id=lease.execution_id, fencing_token=lease.fencing_token)


async def reports_request(executor_id: str, reports: Sequence[Report]) -> pb.ReportAttemptsRequest:
    """Return the call that tells these, a few at a time."""
    request = pb.ReportAttemptsRequest(executor_id=executor_id)
    for start in range(0, len(reports), MESSAGES_A_TURN):
        if start:
            await next_turn()
        for report in reports[start : start + MESSAGES_A_TURN]:
            write_report(report, request.reports.add())
    return request


def write_report(report: Report, message: pb.AttemptReport) -> None:
    """Write the report into an empty message, in place, as a third of the price of making parts and copying them.

    What was not told stays unset.
    """
    message.lease.execution_id, message.lease.fencing_token = report.lease
    message.result = pb.AttemptReport.Result.ValueType(report.result.value)
    message.status_code = report.status_code
    if report.start_time is not None:
        set_timestamp(message.start_time, report.start_time)
    if report.end_time is not None:
        set_timestamp(message.end_time, report.end_time)
    if report.response is not None:
        _write_response(report.response, message.response)
    if report.trace_id:
        message.trace_id = report.trace_id
    if report.error_reason or report.error_message:
        message.error_reason, message.error_message = report.error_reason, report.error_message
    _write_wishes(report, message)


def _write_wishes(report: Report, message: pb.AttemptReport) -> None:
    """Write what a limit or the target asks for, which few reports tell."""
    if report.defer_time is not None:
        set_timestamp(message.defer_time, report.defer_time)
        message.defer_reason = report.defer_reason
    if report.retry_after is not None:
        message.retry_after.CopyFrom(span_of(report.retry_after))
    if report.rate_limit is not None:
        message.rate_limit.CopyFrom(_rate_limit_message(report.rate_limit))
    if report.redirect_count:
        message.redirect_count = report.redirect_count
    if report.stop_requested:
        message.stop_requested = True


def host_message(host: ObservedHost) -> target_host_pb2.TargetHost:
    """Return what was seen of a host as a proto; its limits are not ours to tell."""
    target, summary = host.target, host.summary
    message = target_host_pb2.TargetHost(
        org_id=target.org_id,
        host=target.host,
        reset_count=target.generation,
        circuit=_CIRCUITS[summary.circuit],
        observe_time=to_timestamp(host.observe_time),
        rate_limit_hit_count=summary.hits,
    )
    if summary.circuit is not CircuitState.CLOSED:
        message.wait_reason = DeferReason.CIRCUIT_OPEN
        message.retry_time.CopyFrom(to_timestamp(from_micros(summary.circuit_until)))
    elif summary.closed_until > to_micros(host.observe_time):
        message.wait_reason = DeferReason.TARGET_RATE_LIMIT
        message.retry_time.CopyFrom(to_timestamp(from_micros(summary.closed_until)))
    return message


def _refusal_of(message: pb.AttemptRefusal) -> Refusal:
    retry_time = instant_of(message.retry_time) if message.HasField("retry_time") else None
    return Refusal(message.execution_id, message.reason, retry_time)


def _request_of(message: pb.AttemptRequest) -> TargetRequest:
    return TargetRequest(
        url=message.url,
        headers=tuple(Header(item.name, item.value, item.sensitive) for item in message.headers),
        body=message.body,
        total_timeout=seconds_of(message.total_timeout),
        connect_timeout=seconds_of(message.connect_timeout),
        first_byte_timeout=seconds_of(message.first_byte_timeout),
        max_redirects=message.max_redirects,
        signing_secrets=tuple(message.signing_secrets),
        response_policy=_policy_of(message.response_policy),
    )


def _policy_of(message: job_pb2.ResponsePolicy) -> ResponsePolicy:
    return ResponsePolicy(
        success_codes=frozenset(message.success_codes),
        checks=tuple(_checks_of(message.checks)) if message.checks else (),
        max_size_bytes=message.max_size_bytes,
        store_full_response=message.store_full_response,
    )


def _checks_of(messages: Iterable[job_pb2.ResponseCheck]) -> Iterable[ResponseCheck]:
    """Yield the checks that this version knows; a newer scheduler's kinds are passed over, as its rollout asks."""
    for message in messages:
        match message.WhichOneof("check"):
            case "json_path_exists":
                yield JsonPathExists(message.json_path_exists)
            case "json_path_equals":
                yield JsonPathEquals(message.json_path_equals.path, message.json_path_equals.json_value)
            case "min_size_bytes":
                yield MinSize(message.min_size_bytes)
            case _:
                continue


def _write_response(response: ReportedResponse, message: pb.ReportedResponse) -> None:
    # There even if nothing is told of it: an empty answer is one.
    message.SetInParent()
    for header in response.headers:
        line = message.headers.add()
        line.name, line.value = header.name, header.value
        if header.sensitive:
            line.sensitive = True
    message.content_type = response.content_type
    message.body = response.body
    message.stored_size_bytes = response.stored_size_bytes
    message.total_size_bytes = response.total_size_bytes
    message.sha256 = response.sha256
    if response.encoding:
        message.encoding = response.encoding
    if response.truncated:
        message.truncated = True
    if response.blob_id:
        message.blob_id = response.blob_id
    if response.warning:
        message.warning = response.warning
    if response.head:
        message.head = response.head


def _rate_limit_message(observation: RateLimitObservation) -> execution_pb2.RateLimitObservation:
    message = execution_pb2.RateLimitObservation(
        family=observation.family,
        remaining_requests=observation.remaining_requests,
        remaining_tokens=observation.remaining_tokens,
    )
    if observation.reset_time is not None:
        message.reset_time.CopyFrom(to_timestamp(observation.reset_time))
    return message
