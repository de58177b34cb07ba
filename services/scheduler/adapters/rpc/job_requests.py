"""What the requests of JobService ask for, as values of the use cases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from punctual.v1 import job_service_pb2 as pb

from libs.common.errors import FieldViolation, InvalidArgumentError
from services.scheduler.adapters.rpc.definition_mapping import to_definition
from services.scheduler.adapters.rpc.job_mapping import to_job_state
from services.scheduler.adapters.rpc.times import to_instant
from services.scheduler.domain.definition_rules import check_label_keys
from services.scheduler.usecases.create_jobs import Submission
from services.scheduler.usecases.explain_job import Window
from services.scheduler.usecases.ports.job_store import JobFilter

MAX_FILTER_LABELS = 8
MAX_NAME = 200

_REQUEST_FIELDS = frozenset({"idempotency_key"})
"""Fields beside the job that a use case may refuse together with those of the job."""


def required(value: str, field: str) -> str:
    """Return a text that must be there.

    Raises:
        InvalidArgumentError: REQUIRED on the field.
    """
    if not value:
        raise InvalidArgumentError.of(field, "REQUIRED", "is required")
    return value


def to_submission(request: pb.CreateJobRequest) -> Submission:
    """Return the submission of a request; paths of its errors are relative to the job."""
    return Submission(
        definition=to_definition(request.job, complete=True),
        idempotency_key=request.idempotency_key,
        validate_only=request.validate_only,
        allow_duplicate=request.allow_duplicate,
    )


def under_job(error: InvalidArgumentError) -> InvalidArgumentError:
    """Return the error with the paths of a definition's violations below `job`."""
    return InvalidArgumentError([v if v.field in _REQUEST_FIELDS else v.under("job") for v in error.violations])


def to_job_filter(request: pb.ListJobsRequest) -> JobFilter:
    """Return the filter of a list.

    Raises:
        InvalidArgumentError: with every violation of it.
    """
    violations = [*_label_violations(request.labels)]
    if len(request.name_prefix) > MAX_NAME:
        violations.append(FieldViolation("name_prefix", "TOO_LONG", f"exceeds {MAX_NAME} characters"))
    elif "\0" in request.name_prefix:
        violations.append(FieldViolation("name_prefix", "INVALID_TEXT", "holds a NUL character"))
    if violations:
        raise InvalidArgumentError(violations)
    return JobFilter(
        project_id=request.project_id,
        states=frozenset(to_job_state(state, "states") for state in set(request.states)),
        labels=dict(request.labels),
        name_prefix=request.name_prefix,
        # Hosts are stored in lower case, as every parser of addresses reads them.
        target_host=request.target_host.lower(),
        next_fire_after=(
            to_instant(request.next_fire_after, "next_fire_after") if request.HasField("next_fire_after") else None
        ),
        next_fire_before=(
            to_instant(request.next_fire_before, "next_fire_before") if request.HasField("next_fire_before") else None
        ),
    )


def to_bulk_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that a bulk call restricts itself to.

    Raises:
        InvalidArgumentError: too many, or what is no label.
    """
    violations = _label_violations(labels)
    if violations:
        raise InvalidArgumentError(violations)
    return dict(labels)


def to_window(request: pb.ExplainJobRequest, now: datetime) -> Window:
    """Return the window to explain, with its defaults filled in.

    Raises:
        InvalidArgumentError: it ends before it starts, or is too long.
    """
    return Window.of(
        to_instant(request.start_time, "start_time") if request.HasField("start_time") else None,
        to_instant(request.end_time, "end_time") if request.HasField("end_time") else None,
        now,
    )


def _label_violations(labels: Mapping[str, str]) -> list[FieldViolation]:
    """Return what is wrong with a filter's labels: a key that no job can have must not find another key's jobs."""
    if len(labels) > MAX_FILTER_LABELS:
        description = f"{len(labels)} labels, at most {MAX_FILTER_LABELS} are allowed"
        return [FieldViolation("labels", "TOO_MANY_LABELS", description)]
    return list(check_label_keys(labels))
