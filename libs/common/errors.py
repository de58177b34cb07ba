"""The errors that cross a process border, as one tree with one meaning each.

    PunctualError
    ├── InvalidArgumentError      a field is wrong, whatever the state (one violation per field)
    ├── NotFoundError             no such object, or the caller may not know that it exists
    ├── AlreadyExistsError        the same key with other content
    ├── FailedPreconditionError   the state must be changed first
    ├── AbortedError              a concurrent change won: read again, then retry
    ├── OutOfRangeError           past the end
    ├── UnauthenticatedError      no credential, or a bad one
    ├── PermissionDeniedError     a known caller who may not
    ├── ResourceExhaustedError    a quota, a rate or a size; carries when to come back
    ├── DeadlineExceededError     not done in time: whether it took effect is unknown
    ├── UnavailableError          nothing happened: retry just this call
    ├── UnimplementedError        not there
    └── InternalError             a broken invariant, never the caller's fault

Each class fixes a canonical code (ours, so that the domain needs no gRPC); each raise names an UPPER_SNAKE reason that
never changes once released (docs/errors.md lists them all). `libs.common.rpc` maps both ways. What crosses: code,
reason, message, metadata, violations, retry delay. What is lost: traceback and cause, which are logged where they
happen.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class Code(enum.Enum):
    """The canonical error codes that Punctual uses; the values are the gRPC status numbers."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One refused field: its proto path (`job.schedule.time_zone`), a stable reason, and a sentence that says why."""

    field: str
    reason: str
    description: str

    def under(self, prefix: str) -> FieldViolation:
        """Return the same violation with its path below `prefix`."""
        path = f"{prefix}.{self.field}" if self.field else prefix
        return FieldViolation(path, self.reason, self.description)


class PunctualError(Exception):
    """The root: a sentence for people, a stable reason for programs, and every variable of the sentence as metadata."""

    code: ClassVar[Code]

    def __init__(self, reason: str, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})


class InvalidArgumentError(PunctualError):
    """One or more fields are wrong whatever the state. The error's reason is that of the first violation."""

    code = Code.INVALID_ARGUMENT

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        first = violations[0]
        message = "; ".join(f"{v.field}: {v.description}" for v in violations)
        super().__init__(first.reason, message, metadata={"field": first.field})
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, reason: str, description: str) -> InvalidArgumentError:
        """Return the error for a single field."""
        return cls([FieldViolation(field, reason, description)])

    def under(self, prefix: str) -> InvalidArgumentError:
        """Return the same error with every path below `prefix`."""
        return InvalidArgumentError([v.under(prefix) for v in self.violations])


class NotFoundError(PunctualError):
    """No such object, or the caller may not know that it exists."""

    code = Code.NOT_FOUND

    def __init__(self, resource_type: str, resource_id: str) -> None:
        super().__init__(
            f"{resource_type.upper()}_NOT_FOUND",
            f"{resource_type} {resource_id!r} does not exist",
            metadata={"resourceType": resource_type, "resourceId": resource_id},
        )
        self.resource_type = resource_type
        self.resource_id = resource_id


class AlreadyExistsError(PunctualError):
    """An object of the same identity exists with other content."""

    code = Code.ALREADY_EXISTS

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        resource_type: str,
        resource_id: str,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, message, metadata={"resourceId": resource_id, **(metadata or {})})
        self.resource_type = resource_type
        self.resource_id = resource_id


class FailedPreconditionError(PunctualError):
    """The state must be changed before this call can succeed."""

    code = Code.FAILED_PRECONDITION


class AbortedError(PunctualError):
    """A concurrent change won; read again before the next try."""

    code = Code.ABORTED


class OutOfRangeError(PunctualError):
    """A position past the end of what there is."""

    code = Code.OUT_OF_RANGE


class UnauthenticatedError(PunctualError):
    """No credential, or one that does not hold."""

    code = Code.UNAUTHENTICATED


class PermissionDeniedError(PunctualError):
    """The caller is known and may not do this."""

    code = Code.PERMISSION_DENIED


class DeadlineExceededError(PunctualError):
    """The call was not done in time; whether it took effect is unknown."""

    code = Code.DEADLINE_EXCEEDED


class RetryableError(PunctualError):
    """An error after which the same call may succeed later."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, message, metadata=metadata)
        self.retry_after_seconds = retry_after_seconds


class ResourceExhaustedError(RetryableError):
    """A quota, a rate or a size is used up."""

    code = Code.RESOURCE_EXHAUSTED


class UnavailableError(RetryableError):
    """Nothing happened; the same call may be retried with backoff."""

    code = Code.UNAVAILABLE


class UnimplementedError(PunctualError):
    """The method or option is not there."""

    code = Code.UNIMPLEMENTED


class InternalError(PunctualError):
    """A broken invariant, never the caller's fault. The message carries an id to find the log line by, nothing else."""

    code = Code.INTERNAL
