"""Errors as statuses and back: what each side may rely on."""

import base64
from urllib.parse import quote

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from libs.common.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    PunctualError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from libs.common.rpc.errors import from_status, to_status

ERRORS: list[PunctualError] = [
    InvalidArgumentError([FieldViolation("job.url", "BAD_URL", "no host"), FieldViolation("job.zone", "NO_ZONE", "x")]),
    NotFoundError("job", "j1"),
    AlreadyExistsError("JOB_EXISTS", "exists", resource_type="job", resource_id="j1"),
    FailedPreconditionError("JOB_PAUSED", "paused", metadata={"jobId": "j1"}),
    AbortedError("STALE_FENCE", "stale"),
    OutOfRangeError("PAST_END", "past the end"),
    UnauthenticatedError("NO_CREDENTIAL", "who?"),
    PermissionDeniedError("NOT_YOURS", "no"),
    ResourceExhaustedError("QUOTA", "too many", retry_after_seconds=1.5),
    UnavailableError("NO_DATABASE", "later", retry_after_seconds=0.25),
    UnavailableError("NO_DATABASE", "later"),
    UnimplementedError("LATER", "not yet"),
    InternalError("INTERNAL", "internal error X", metadata={"errorId": "X"}),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}")
def test_error_survives_the_round_trip(error: PunctualError) -> None:
    back = from_status(to_status(error))
    assert type(back) is type(error)
    assert vars(back) == vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}")
def test_each_status_has_one_error_info_and_each_detail_once(error: PunctualError) -> None:
    status = to_status(error)
    types = [detail.type_url.rpartition(".")[2] for detail in status.details]
    assert types.count("ErrorInfo") == 1
    assert len(types) == len(set(types))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.reason, "punctual")


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (ERRORS[0], "BadRequest"),
        (ERRORS[1], "ResourceInfo"),
        (ERRORS[2], "ResourceInfo"),
        (ERRORS[3], "PreconditionFailure"),
        (ERRORS[8], "QuotaFailure"),
        (ERRORS[8], "RetryInfo"),
        (ERRORS[9], "RetryInfo"),
        (ERRORS[12], "RequestInfo"),
    ],
)
def test_typed_details_go_with_their_codes(error: PunctualError, detail: str) -> None:
    assert detail in {item.type_url.rpartition(".")[2] for item in to_status(error).details}


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (code_pb2.UNAVAILABLE, UnavailableError, "UNAVAILABLE"),
        (code_pb2.DEADLINE_EXCEEDED, UnavailableError, "DEADLINE_EXCEEDED"),
        (code_pb2.UNKNOWN, InternalError, "UNKNOWN"),
        (code_pb2.INVALID_ARGUMENT, InvalidArgumentError, "INVALID_ARGUMENT"),
        (99, InternalError, "UNKNOWN"),
    ],
)
def test_status_without_details_is_named_by_its_code(code: int, kind: type[PunctualError], reason: str) -> None:
    error = from_status(status_pb2.Status(code=code, message="m"))
    assert (type(error), error.reason) == (kind, reason)


LONG = 50_000
LONG_ERRORS: list[PunctualError] = [
    InvalidArgumentError.of("job.schedule.time_zone", "UNKNOWN_TIME_ZONE", "x" * LONG),
    InvalidArgumentError([FieldViolation(f"job.target.headers[{n}].value", "BAD", "ü" * LONG) for n in range(500)]),
    NotFoundError("job", "😀" * LONG),
    AlreadyExistsError("REUSED", "%" * LONG, resource_type="job", resource_id="j" * LONG, metadata={"key": "k" * LONG}),
    FailedPreconditionError("JOB_PAUSED", "\n" * LONG, metadata={"jobId": "j" * LONG, "state": "PAUSED"}),
    ResourceExhaustedError("QUOTA", "m" * LONG, retry_after_seconds=1.5, metadata={"subject": "org:acme"}),
]


@pytest.mark.parametrize("error", LONG_ERRORS, ids=lambda error: f"{type(error).__name__}")
def test_a_status_fits_into_the_trailers_that_clients_take(error: PunctualError) -> None:
    status = to_status(error)
    trailers = len(quote(status.message, safe="")) + len(base64.b64encode(status.SerializeToString()))
    assert trailers < 8192 - 512, "leaves room for the other trailers"
    assert status.message.endswith("…")
    assert from_status(status).reason == error.reason


def test_of_very_many_violations_the_first_cross_and_the_others_are_counted() -> None:
    error = InvalidArgumentError([FieldViolation(f"job.labels.{n}", "BAD_LABEL", "is no label") for n in range(3000)])
    status = to_status(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    back = from_status(status)
    assert isinstance(back, InvalidArgumentError)
    shown = len(back.violations)
    assert 20 < shown < 3000
    assert back.violations == error.violations[:shown]
    assert info.metadata["omittedViolations"] == str(3000 - shown)
