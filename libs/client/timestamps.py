"""Turns Python's times into the messages of the API; a naive datetime, whose instant nobody knows, is refused."""

from __future__ import annotations

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the instant of an aware datetime; None stays unset.

    Raises:
        ValueError: the datetime has no zone.
    """
    if moment is None:
        return None
    if moment.utcoffset() is None:
        raise ValueError(f"{moment.isoformat()} has no zone: pass an aware datetime")
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def duration(span: timedelta | None) -> Duration | None:
    """Return a span; None stays unset."""
    if span is None:
        return None
    message = Duration()
    message.FromTimedelta(span)
    return message
