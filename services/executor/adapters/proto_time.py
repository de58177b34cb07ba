"""Instants and spans between protos and Python, without floats where instants are concerned.

A due time is rounded up to Python's microseconds: rounded down, a POST could start before it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def instant_of(stamp: Timestamp) -> datetime:
    """Return the instant, rounded up to a microsecond."""
    return _EPOCH + _MICROSECOND * (stamp.seconds * 1_000_000 - (-stamp.nanos // 1000))


def seconds_of(span: Duration) -> float:
    """Return the span in seconds."""
    return span.seconds + span.nanos / 1e9


def span_of(seconds: float) -> Duration:
    """Return that many seconds as a proto."""
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)
