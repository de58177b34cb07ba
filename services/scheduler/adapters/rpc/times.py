"""Between protobuf's well-known time types and aware UTC datetimes and spans."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from libs.common.errors import InvalidArgumentError
from libs.common.rpc.timestamps import to_timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_optional_timestamp(instant: datetime | None) -> Timestamp | None:
    """Return the message for an instant, or None for none."""
    return None if instant is None else to_timestamp(instant)


def to_duration(span: timedelta) -> Duration:
    """Return the message for a span."""
    message = Duration()
    message.FromTimedelta(span)
    return message


def to_instant(message: Timestamp, field: str) -> datetime:
    """Return the instant of a message, cut to milliseconds.

    Raises:
        InvalidArgumentError: INVALID_TIMESTAMP, for what lies outside the years 1 to 9999.
    """
    try:
        instant = _EPOCH + timedelta(seconds=message.seconds, milliseconds=message.nanos // 1_000_000)
    except OverflowError as error:
        raise _bad_timestamp(field) from error
    if not 0 <= message.nanos < 1_000_000_000:
        raise _bad_timestamp(field)
    return instant


def to_precise_instant(message: Timestamp, field: str) -> datetime:
    """Return the instant of a message to the microsecond, for spans that are judged finer than instants are stored.

    Raises:
        InvalidArgumentError: as `to_instant`.
    """
    return to_instant(message, field) + timedelta(microseconds=message.nanos % 1_000_000 // 1000)


def to_span(message: Duration, field: str) -> timedelta:
    """Return the span of a message, cut to milliseconds, as it is stored.

    Raises:
        InvalidArgumentError: INVALID_DURATION, for what no timedelta can hold, and where seconds and nanos disagree.
    """
    try:
        span = message.ToTimedelta()
    except (OverflowError, ValueError) as error:
        raise _bad_duration(field) from error
    # Not checked by ToTimedelta, which would add the two up.
    if message.seconds * message.nanos < 0 or abs(message.nanos) >= 1_000_000_000:
        raise _bad_duration(field)
    return span - span % _MILLISECOND


def _bad_timestamp(field: str) -> InvalidArgumentError:
    return InvalidArgumentError.of(field, "INVALID_TIMESTAMP", "is not an instant between the years 1 and 9999")


def _bad_duration(field: str) -> InvalidArgumentError:
    return InvalidArgumentError.of(field, "INVALID_DURATION", "is not a valid duration")
