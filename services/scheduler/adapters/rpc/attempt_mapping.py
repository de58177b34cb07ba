"""Between the messages of AttemptService and the values of the lease use cases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.v1 import execution_pb2

from libs.common.errors import InvalidArgumentError
from services.scheduler.adapters.rpc.execution_mapping import STATES
from services.scheduler.adapters.rpc.policy_mapping import from_response_policy
from services.scheduler.adapters.rpc.times import (
    to_duration,
    to_instant,
    to_optional_timestamp,
    to_precise_instant,
    to_span,
    to_timestamp,
)
from services.scheduler.domain.begin import Refuse
from services.scheduler.domain.execution import ExecutionState, RateLimitObservation, ResponseHeader, StoredResponse
from services.scheduler.domain.outcome import AttemptReport, Result
from services.scheduler.usecases.begin_attempts import GrantedAttempt
from services.scheduler.usecases.grant_details import GrantDetails
from services.scheduler.usecases.report_attempts import Reported

_RESULTS: Mapping[int, Result] = {pb.AttemptReport.Result.Value(f"RESULT_{result.name}"): result for result in Result}


def from_grant(granted: GrantedAttempt, body: bytes, details: GrantDetails) -> pb.AttemptGrant:
    """Return the message of a granted attempt; the internal port is the only place that carries secrets in clear."""
    execution, job = granted.execution, granted.job
    definition = job.definition
    timeout = definition.timeout
    return pb.AttemptGrant(
        execution_id=execution.execution_id,
        job_id=execution.job_id,
        org_id=execution.org_id,
        attempt_number=granted.attempt_number,
        fencing_token=granted.fencing_token,
        # A retry or a deferral is due when its wait ends.
        due_time=to_timestamp(max(execution.due_time, execution.available_time or execution.due_time)),
        fire_time=to_timestamp(execution.fire_time),
        request=pb.AttemptRequest(
            url=definition.target.url,
            headers=[
                pb.RequestHeader(name=header.name, value=header.value, sensitive=header.sensitive)
                for header in definition.target.headers
            ],
            body=body,
            total_timeout=to_duration(timeout.total),
            connect_timeout=to_duration(timeout.connect),
            first_byte_timeout=to_duration(timeout.first_byte or timeout.total),
            max_redirects=definition.target.max_redirects,
            signing_secrets=details.signing_keys,
            response_policy=from_response_policy(definition.response),
        ),
        limits=pb.AttemptLimits(
            job_requests_per_minute=definition.rate_limit.max_requests_per_minute,
            host_requests_per_minute=details.host_limits.max_requests_per_minute,
            host_concurrent_requests=details.host_limits.max_concurrent_requests,
            host_generation=details.host_generation,
        ),
        trace_parent=execution.trace_parent,
    )


def from_refusal(execution_id: str, refusal: Refuse) -> pb.AttemptRefusal:
    """Return the message of a refusal."""
    return pb.AttemptRefusal(
        execution_id=execution_id, reason=refusal.reason, retry_time=to_optional_timestamp(refusal.retry_time)
    )


def from_verdict(lease: pb.AttemptLease, counted: Mapping[Reported, ExecutionState]) -> pb.ReportResult:
    """Return what came of the report under a lease."""
    state = counted.get((lease.execution_id, lease.fencing_token))
    if state is None:
        return pb.ReportResult(lease=lease, verdict=pb.ReportResult.VERDICT_STALE)
    return pb.ReportResult(lease=lease, verdict=pb.ReportResult.VERDICT_ACCEPTED, state=STATES[state])


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
