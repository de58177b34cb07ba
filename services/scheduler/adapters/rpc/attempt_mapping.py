"""Between the messages of AttemptService and the values of the lease use cases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp
from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.v1 import execution_pb2

from libs.common.errors import InvalidArgumentError
from libs.common.rpc.timestamps import set_timestamp
from services.scheduler.adapters.rpc.execution_mapping import STATES
from services.scheduler.adapters.rpc.policy_mapping import write_response
from services.scheduler.adapters.rpc.times import (
    to_duration,
    to_instant,
    to_optional_timestamp,
    to_precise_instant,
    to_span,
)
from services.scheduler.domain.begin import Refuse
from services.scheduler.domain.execution import ExecutionState, RateLimitObservation, ResponseHeader, StoredResponse
from services.scheduler.domain.job import JobDefinition
from services.scheduler.domain.outcome import AttemptReport, Result
from services.scheduler.usecases.begin_attempts import GrantedAttempt
from services.scheduler.usecases.grant_details import GrantDetails
from services.scheduler.usecases.report_attempts import Reported

# Most jobs have the same few. What is remembered is copied from, and never changed.
_duration = lru_cache(maxsize=256)(to_duration)
_RESULTS: Mapping[int, Result] = {pb.AttemptReport.Result.Value(f"RESULT_{result.name}"): result for result in Result}


def write_grant(message: pb.AttemptGrant, granted: GrantedAttempt, body: bytes, details: GrantDetails) -> None:
    """Write a granted attempt into an empty message; the internal port is the only place that carries secrets in clear.

    In place, for to make parts and copy them costs twice as much.
    """
    execution, definition = granted.execution, granted.job.definition
    message.execution_id = execution.execution_id
    message.job_id = execution.job_id
    message.org_id = execution.org_id
    message.attempt_number = granted.attempt_number
    message.fencing_token = granted.fencing_token
    # A retry or a deferral is due when its wait ends.
    set_timestamp(message.due_time, max(execution.due_time, execution.available_time or execution.due_time))
    set_timestamp(message.fire_time, execution.fire_time)
    message.trace_parent = execution.trace_parent
    _write_request(message.request, definition, body, details)
    limits = message.limits
    limits.job_requests_per_minute = definition.rate_limit.max_requests_per_minute
    limits.host_requests_per_minute = details.host_limits.max_requests_per_minute
    limits.host_concurrent_requests = details.host_limits.max_concurrent_requests
    limits.host_generation = details.host_generation


def _write_request(request: pb.AttemptRequest, definition: JobDefinition, body: bytes, details: GrantDetails) -> None:
    target, timeout = definition.target, definition.timeout
    request.url = target.url
    for header in target.headers:
        request.headers.add(name=header.name, value=header.value, sensitive=header.sensitive)
    request.body = body
    request.total_timeout.CopyFrom(_duration(timeout.total))
    request.connect_timeout.CopyFrom(_duration(timeout.connect))
    request.first_byte_timeout.CopyFrom(_duration(timeout.first_byte or timeout.total))
    request.max_redirects = target.max_redirects
    request.signing_secrets.extend(details.signing_keys)
    request.response_policy.CopyFrom(write_response(definition.response))


def from_refusal(execution_id: str, refusal: Refuse) -> pb.AttemptRefusal:
    """Return the message of a refusal."""
    return pb.AttemptRefusal(
        execution_id=execution_id, reason=refusal.reason, retry_time=to_optional_timestamp(refusal.retry_time)
    )


def write_verdict(result: pb.ReportResult, lease: pb.AttemptLease, counted: Mapping[Reported, ExecutionState]) -> None:
    """Write what came of the report under a lease into an empty message."""
    result.lease.CopyFrom(lease)
    state = counted.get((lease.execution_id, lease.fencing_token))
    if state is None:
        result.verdict = pb.ReportResult.VERDICT_STALE
    else:
        result.verdict = pb.ReportResult.VERDICT_ACCEPTED
        result.state = STATES[state]


def to_report(message: pb.AttemptReport) -> AttemptReport:
    """Return the report of a message.

    Raises:
        InvalidArgumentError: it names no known result, or no end.
    """
    result = _RESULTS.get(message.result)
    if result is None:
        raise InvalidArgumentError.of("reports.result", "UNKNOWN_ENUM_VALUE", f"{message.result} is not a known value")
    if not message.HasField("end_time"):
        raise InvalidArgumentError.of("reports.end_time", "REQUIRED", "is required")
    return AttemptReport(
        execution_id=message.lease.execution_id,
        fencing_token=message.lease.fencing_token,
        result=result,
        start_time=(
            to_precise_instant(message.start_time, "reports.start_time") if message.HasField("start_time") else None
        ),
        end_time=to_instant(message.end_time, "reports.end_time"),
        error_reason=message.error_reason,
        error_message=message.error_message,
        response=_to_response(message) if result is Result.ANSWERED else None,
        defer_time=_optional(message, "defer_time", message.defer_time),
        defer_reason=message.defer_reason,
        retry_after=_to_retry_after(message),
        rate_limit=_to_observation(message.rate_limit) if message.HasField("rate_limit") else None,
        redirect_count=message.redirect_count,
        stop_requested=message.stop_requested,
        trace_id=message.trace_id,
    )


def _optional(message: pb.AttemptReport, name: str, value: Timestamp) -> datetime | None:
    # HasField takes literals only, but the names come from above.
    present = message.HasField(name)  # type: ignore[arg-type]
    return to_instant(value, f"reports.{name}") if present else None


def _to_retry_after(message: pb.AttemptReport) -> timedelta | None:
    if not message.HasField("retry_after"):
        return None
    return to_span(message.retry_after, "reports.retry_after")


def _to_observation(message: execution_pb2.RateLimitObservation) -> RateLimitObservation:
    reset = to_instant(message.reset_time, "reports.rate_limit.reset_time") if message.HasField("reset_time") else None
    return RateLimitObservation(message.family, message.remaining_requests, message.remaining_tokens, reset)


def _to_response(message: pb.AttemptReport) -> StoredResponse:
    answer = message.response
    return StoredResponse(
        status_code=message.status_code,
        headers=tuple(ResponseHeader(header.name, header.value) for header in answer.headers),
        content_type=answer.content_type,
        body=answer.body,
        encoding=answer.encoding,
        stored_size_bytes=answer.stored_size_bytes,
        total_size_bytes=answer.total_size_bytes,
        truncated=answer.truncated,
        sha256=answer.sha256,
        blob_id=answer.blob_id,
        head=answer.head,
        warning=answer.warning,
    )
