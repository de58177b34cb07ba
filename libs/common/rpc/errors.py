"""Maps the error tree to google.rpc.Status and back, so that an error means the same on both sides of a call.

What crosses: code, reason, message, metadata, field violations, retry delay, the resource. Each status carries exactly
one ErrorInfo (AIP-193). It travels in the call's trailers, of which clients take 8 KiB by default: of more than that a
caller would see nothing but gRPC's own RESOURCE_EXHAUSTED. So texts are cut, as they may repeat what a caller sent, and
of very many violations the first ones cross, with the number of the others. The outcome of a call that ends by
DEADLINE_EXCEEDED or CANCELLED is unknown; it comes back as UnavailableError with that reason, which is right for the
internal calls, all of which may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from libs.common.errors import (
    AbortedError,
    AlreadyExistsError,
    Code,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    PunctualError,
    ResourceExhaustedError,
    RetryableError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)

DOMAIN = "punctual"
DETAILS_KEY = "grpc-status-details-bin"
ERROR_ID = "errorId"
OMITTED_VIOLATIONS = "omittedViolations"

MAX_MESSAGE = 1000
MAX_TEXT = 400
MAX_VIOLATIONS = 2500
"""Bytes of a message, of any other text of a status, and of all violations: with the message's copy in the details, and
those in base64, the trailers stay below 8 KiB."""

_PLAIN: dict[int, Callable[..., PunctualError]] = {
    Code.FAILED_PRECONDITION.value: FailedPreconditionError,
    Code.ABORTED.value: AbortedError,
    Code.OUT_OF_RANGE.value: OutOfRangeError,
    Code.UNAUTHENTICATED.value: UnauthenticatedError,
    Code.PERMISSION_DENIED.value: PermissionDeniedError,
    Code.UNIMPLEMENTED.value: UnimplementedError,
    Code.INTERNAL.value: InternalError,
}
_RETRYABLE: dict[int, Callable[..., RetryableError]] = {
    Code.RESOURCE_EXHAUSTED.value: ResourceExhaustedError,
    Code.UNAVAILABLE.value: UnavailableError,
    # The outcome is unknown: the caller may only repeat what is safe to repeat.
    grpc.StatusCode.DEADLINE_EXCEEDED.value[0]: UnavailableError,
    grpc.StatusCode.CANCELLED.value[0]: UnavailableError,
}


def to_status(error: PunctualError) -> status_pb2.Status:
    """Return the status that says all of the error that may leave the process, in no more than the trailers hold."""
    metadata = {name: shorten(value, MAX_TEXT) for name, value in error.metadata.items()}
    typed = _typed_details(error)
    if isinstance(error, InvalidArgumentError):
        bad_request, omitted = _bad_request(error)
        typed.append(bad_request)
        if omitted:
            metadata[OMITTED_VIOLATIONS] = str(omitted)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status = status_pb2.Status(code=error.code.value, message=shorten(error.message))
    for detail in (info, *typed):
        status.details.add().Pack(detail)
    return status


def shorten(text: str, most: int = MAX_MESSAGE) -> str:
    """Return a text cut to so many bytes as a header has it: three for each byte that is no plain character."""
    size = 0
    for index, character in enumerate(text):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if size > most:
            return f"{text[:index]}…"
    return text


def _bad_request(error: InvalidArgumentError) -> tuple[error_details_pb2.BadRequest, int]:
    """Return the violations that fit, at least the first one, and how many are left out."""
    bad_request = error_details_pb2.BadRequest()
    for violation in error.violations:
        bad_request.field_violations.add(
            field=violation.field, reason=violation.reason, description=shorten(violation.description, MAX_TEXT)
        )
        if bad_request.ByteSize() > MAX_VIOLATIONS:
            del bad_request.field_violations[-1]
            break
    return bad_request, len(error.violations) - len(bad_request.field_violations)


def status_code(error: PunctualError) -> grpc.StatusCode:
    """Return the gRPC code of the error."""
    return grpc.StatusCode[error.code.name]


def _typed_details(error: PunctualError) -> list[Message]:
    """Return what google.rpc has a message for, beside the ErrorInfo and the violations of fields."""
    details: list[Message] = []
    description = shorten(error.message, MAX_TEXT)
    match error:
        case NotFoundError() | AlreadyExistsError():
            details.append(
                error_details_pb2.ResourceInfo(
                    resource_type=error.resource_type,
                    resource_name=shorten(error.resource_id, MAX_TEXT),
                    description=description,
                )
            )
        case FailedPreconditionError():
            precondition = error_details_pb2.PreconditionFailure()
            precondition.violations.add(type=error.reason, description=description)
            details.append(precondition)
        case ResourceExhaustedError():
            quota = error_details_pb2.QuotaFailure()
            quota.violations.add(subject=error.metadata.get("subject", ""), description=description)
            details.append(quota)
        case InternalError() if ERROR_ID in error.metadata:
            details.append(error_details_pb2.RequestInfo(request_id=error.metadata[ERROR_ID]))
        case _:
            pass
    if isinstance(error, RetryableError) and error.retry_after_seconds is not None:
        delay = Duration(nanos=0)
        delay.FromNanoseconds(round(error.retry_after_seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def from_rpc_error(error: grpc.aio.AioRpcError) -> PunctualError:
    """Return the error that the other side raised; one that gRPC itself raised gets the code's name as its reason."""
    status = _read_status(error)
    return from_status(status)


def from_status(status: status_pb2.Status) -> PunctualError:
    """Return the error that the status says. Unknown codes become InternalError."""
    info = error_details_pb2.ErrorInfo()
    found = _unpack(status, info)
    reason = info.reason if found and info.reason else _code_name(status.code)
    message, metadata = status.message, dict(info.metadata)
    if status.code == Code.INVALID_ARGUMENT.value:
        return _invalid_argument(status, reason)
    if status.code in {Code.NOT_FOUND.value, Code.ALREADY_EXISTS.value}:
        return _about_resource(status, reason, metadata)
    if status.code in _RETRYABLE:
        retry = error_details_pb2.RetryInfo()
        delay = retry.retry_delay.ToNanoseconds() / 1e9 if _unpack(status, retry) else None
        return _RETRYABLE[status.code](reason, message, retry_after_seconds=delay, metadata=metadata)
    return _PLAIN.get(status.code, InternalError)(reason, message, metadata=metadata)


def _invalid_argument(status: status_pb2.Status, reason: str) -> InvalidArgumentError:
    bad_request = error_details_pb2.BadRequest()
    _unpack(status, bad_request)
    violations = [FieldViolation(v.field, v.reason or reason, v.description) for v in bad_request.field_violations]
    return InvalidArgumentError(violations or [FieldViolation("request", reason, status.message)])


def _about_resource(status: status_pb2.Status, reason: str, metadata: dict[str, str]) -> PunctualError:
    resource = error_details_pb2.ResourceInfo()
    _unpack(status, resource)
    if status.code == Code.NOT_FOUND.value:
        return NotFoundError(resource.resource_type or "resource", resource.resource_name)
    return AlreadyExistsError(
        reason,
        status.message,
        resource_type=resource.resource_type,
        resource_id=resource.resource_name,
        metadata=metadata,
    )


def _read_status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Return the rich status that came along, or a plain one made of code and message."""
    code = error.code().value[0]
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = status_pb2.Status()
            try:
                status.ParseFromString(value)
            except DecodeError:
                break
            # A proxy between us may have changed the code; then its word counts, and the details are another error's.
            if status.code == code:
                return status
    return status_pb2.Status(code=code, message=error.details() or "")


def _unpack(status: status_pb2.Status, into: Message) -> bool:
    """Read the detail of that type into `into`; return whether there is one."""
    return any(detail.Unpack(into) for detail in status.details)


def _code_name(code: int) -> str:
    return next((known.name for known in grpc.StatusCode if known.value[0] == code), "UNKNOWN")
