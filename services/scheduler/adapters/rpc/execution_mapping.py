"""From executions to their messages."""

from __future__ import annotations

import gzip
import io
from datetime import timedelta

import zstandard
from punctual.v1 import execution_pb2, job_pb2

from libs.common.rpc.timestamps import to_timestamp
from services.scheduler.adapters.rpc.times import to_duration, to_optional_timestamp
from services.scheduler.domain.execution import (
    Attempt,
    Cause,
    DeliveryPath,
    Execution,
    ExecutionState,
    Outcome,
    RateLimitObservation,
    StoredResponse,
)

MAX_INLINE_BODY = 64 * 1024
"""Bytes of an answer that a message carries; the whole comes from DownloadResponse."""

STATES = {state: execution_pb2.Execution.State.Value(f"STATE_{state.name}") for state in ExecutionState}
CAUSES = {cause: execution_pb2.Execution.Cause.Value(f"CAUSE_{cause.name}") for cause in Cause}
_OUTCOMES = {outcome: execution_pb2.Attempt.Outcome.Value(f"OUTCOME_{outcome.name}") for outcome in Outcome}
_PATHS = {
    None: execution_pb2.DELIVERY_PATH_UNSPECIFIED,
    DeliveryPath.STREAM: execution_pb2.DELIVERY_PATH_STREAM,
    DeliveryPath.POLL: execution_pb2.DELIVERY_PATH_POLL,
}


def from_execution(execution: Execution, *, prompt: str = "", content: bool = True) -> execution_pb2.Execution:
    """Return the message of an execution, with as much of its answer as was loaded, or without the answer's bytes."""
    waits = execution.state is ExecutionState.READY and execution.attempt_number + execution.deferral_count > 0
    return execution_pb2.Execution(
        execution_id=execution.execution_id,
        job_id=execution.callback.job_id if execution.callback else execution.job_id,
        org_id=execution.org_id,
        project_id=execution.project_id,
        cause=CAUSES[execution.cause],
        state=STATES[execution.state],
        state_reason=execution.state_reason,
        fire_time=to_timestamp(execution.fire_time),
        due_time=to_timestamp(execution.due_time),
        start_time=to_optional_timestamp(execution.start_time),
        end_time=to_optional_timestamp(execution.end_time),
        lag=None if execution.lag_micros is None else to_duration(timedelta(microseconds=execution.lag_micros)),
        job_revision=execution.job_revision,
        attempts=[_from_attempt(attempt) for attempt in execution.attempts],
        deferral_count=execution.deferral_count,
        next_attempt_time=to_optional_timestamp(execution.available_time if waits else None),
        wait_reason=execution.wait_reason,
        response=from_response(execution.response, content=content) if execution.response else None,
        retried_execution_id=execution.retried_execution_id,
        told_execution_id=execution.callback.execution_id if execution.callback else "",
        delivery_path=_PATHS[execution.delivery_path],
        trace_id=execution.trace_id,
        create_time=to_timestamp(execution.create_time),
        expire_time=to_optional_timestamp(execution.expire_time),
        prompt=prompt,
    )


def _from_attempt(attempt: Attempt) -> execution_pb2.Attempt:
    return execution_pb2.Attempt(
        number=attempt.number,
        outcome=_OUTCOMES[attempt.outcome],
        begin_time=to_timestamp(attempt.begin_time),
        start_time=to_optional_timestamp(attempt.start_time),
        end_time=to_timestamp(attempt.end_time),
        status_code=attempt.status_code,
        error_reason=attempt.error_reason,
        error_message=attempt.error_message,
        executor_id=attempt.executor_id,
        fencing_token=attempt.fencing_token,
        decision=attempt.decision,
        rate_limit=_from_observation(attempt.rate_limit) if attempt.rate_limit else None,
        redirect_count=attempt.redirect_count,
    )


def _from_observation(observation: RateLimitObservation) -> execution_pb2.RateLimitObservation:
    return execution_pb2.RateLimitObservation(
        family=observation.family,
        remaining_requests=observation.remaining_requests,
        remaining_tokens=observation.remaining_tokens,
        reset_time=to_optional_timestamp(observation.reset_time),
    )


def from_response(response: StoredResponse, *, content: bool = True) -> execution_pb2.Response:
    """Return the message of an answer, with its first bytes where they are at hand, or without any."""
    body = b""
    if content:
        body = decompress_prefix(response.body, response.encoding) if response.body else response.head
    return execution_pb2.Response(
        status_code=response.status_code,
        headers=[job_pb2.Header(name=header.name, value=header.value) for header in response.headers],
        content_type=response.content_type,
        stored_size_bytes=response.stored_size_bytes,
        total_size_bytes=response.total_size_bytes,
        truncated=response.truncated,
        body=body,
        complete=len(body) == response.stored_size_bytes,
        sha256=response.sha256.hex(),
        warning=response.warning,
    )


def decompress_prefix(data: bytes, encoding: str) -> bytes:
    """Return at most MAX_INLINE_BODY bytes of what was stored compressed; never more, whatever it would expand to."""
    match encoding:
        case "zstd":
            reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
            return reader.read(MAX_INLINE_BODY)
        case "gzip":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                return file.read(MAX_INLINE_BODY)
        case _:
            return data[:MAX_INLINE_BODY]
