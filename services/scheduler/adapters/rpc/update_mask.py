"""Applies the fields that UpdateJob's mask names to a stored definition.

The stored definition is written out as a message, the named fields are taken over from the request, and the result is
read as if it had been sent whole: so an update can neither reach what a create cannot, nor mean anything else.

A path names a field of the Job message, or one inside of it (`schedule.cron.expression`). A named field that the
request leaves empty goes back to its default. Without a mask the populated fields are taken, down to the single value;
`*` replaces all that a caller may write. A masked secret that comes back unchanged keeps its stored value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from punctual.v1 import job_pb2
from punctual.v1 import job_service_pb2 as pb

from libs.common.errors import FieldViolation, InvalidArgumentError
from services.scheduler.adapters.rpc.definition_mapping import from_definition, to_definition
from services.scheduler.domain.job import JobDefinition, TimeoutPolicy
from services.scheduler.domain.request_headers import MASK, keep_masked

WRITABLE_FIELDS = (
    "name",
    "description",
    "labels",
    "schedule",
    "target",
    "retry_policy",
    "timeout_policy",
    "overlap_policy",
    "catch_up_policy",
    "on_unknown_outcome",
    "rate_limit_policy",
    "response_policy",
    "callback_policy",
    "max_consecutive_failures",
)
"""What an update may change; all other fields of the message but `project_id` are the scheduler's."""

MAX_PATHS = 100
_IMMUTABLE = "project_id"
_MASK_FIELD = "update_mask"

Path = tuple[str, ...]


def to_edit(request: pb.UpdateJobRequest) -> Callable[[JobDefinition], JobDefinition]:
    """Return the edit that a request asks for; paths of its own errors are relative to the job.

    Raises:
        InvalidArgumentError: the mask names what is not there or not a caller's to change, each path by itself.
    """
    sent = request.job
    paths = _paths(request)

    def edit(stored: JobDefinition) -> JobDefinition:
        if sent.project_id and sent.project_id != stored.project_id:
            raise InvalidArgumentError.of(_IMMUTABLE, "IMMUTABLE_FIELD", "cannot be changed")
        merged = _written_out(stored)
        for path in paths:
            _take(sent, merged, path)
        changed = to_definition(merged)
        headers = keep_masked(changed.target.headers, stored.target.headers)
        return replace(changed, target=replace(changed.target, headers=headers))

    return edit


def _paths(request: pb.UpdateJobRequest) -> Sequence[Path]:
    named = list(request.update_mask.paths)
    if not named:
        return list(_populated(request.job))
    if named == ["*"]:
        return [(name,) for name in WRITABLE_FIELDS]
    if len(named) > MAX_PATHS:
        raise InvalidArgumentError.of(_MASK_FIELD, "TOO_MANY_PATHS", f"{len(named)} paths, at most {MAX_PATHS}")
    violations = [violation for name in named for violation in _check_path(name)]
    if violations:
        raise InvalidArgumentError(violations)
    return [tuple(name.split(".")) for name in named]


def _check_path(name: str) -> Iterator[FieldViolation]:
    if name == "*":
        yield FieldViolation(_MASK_FIELD, "INVALID_PATH", "`*` must be the only path")
        return
    descriptor: Descriptor | None = job_pb2.Job.DESCRIPTOR
    for segment in name.split("."):
        field = descriptor.fields_by_name.get(segment) if descriptor is not None else None
        if field is None:
            yield FieldViolation(_MASK_FIELD, "UNKNOWN_PATH", f"{name[:200]!r} is no field of a job")
            return
        descriptor = field.message_type if _is_single_message(field) else None
    first = name.partition(".")[0]
    if first == _IMMUTABLE:
        yield FieldViolation(_MASK_FIELD, "IMMUTABLE_FIELD", f"{name!r} cannot be changed")
    elif first not in WRITABLE_FIELDS:
        yield FieldViolation(_MASK_FIELD, "OUTPUT_ONLY_FIELD", f"{name!r} is set by the scheduler")


def _populated(sent: job_pb2.Job) -> Iterator[Path]:
    for field, value in sent.ListFields():
        if field.name in WRITABLE_FIELDS:
            yield from _populated_below((field.name,), field, value)


def _populated_below(path: Path, field: FieldDescriptor, value: object) -> Iterator[Path]:
    if not isinstance(value, Message) or not _is_single_message(field):
        yield path
        return
    for inner, inner_value in value.ListFields():
        yield from _populated_below((*path, inner.name), inner, inner_value)


def _is_single_message(field: FieldDescriptor) -> bool:
    """Whether the field is a message of ours, into which a path may go on; an instant or a span is one value."""
    message = field.message_type
    return message is not None and not field.is_repeated and message.file.package == "punctual.v1"


def _take(sent: Message, merged: Message, path: Path) -> None:
    """Take one field over; a part of the request that is not there counts as empty."""
    *parents, name = path
    for parent in parents:
        sent, merged = getattr(sent, parent), getattr(merged, parent)
    field = merged.DESCRIPTOR.fields_by_name[name]
    merged.ClearField(name)
    if field.is_repeated:
        getattr(merged, name).MergeFrom(getattr(sent, name))
    elif field.message_type is not None:
        if sent.HasField(name):
            getattr(merged, name).CopyFrom(getattr(sent, name))
    elif not field.has_presence or sent.HasField(name):
        setattr(merged, name, getattr(sent, name))


def _written_out(stored: JobDefinition) -> job_pb2.Job:
    """Return the stored definition as its owner may have sent it."""
    message = from_definition(stored)
    for header in message.target.headers:
        if header.sensitive:
            header.value = MASK
    # What follows from the total timeout follows from the new one, too.
    if stored.timeout.first_byte is None:
        message.timeout_policy.ClearField("first_byte")
    if stored.timeout.connect == min(TimeoutPolicy().connect, stored.timeout.total):
        message.timeout_policy.ClearField("connect")
    return message
