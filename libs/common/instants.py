"""Instants in the precision that is stored and sent: whole milliseconds, aware, UTC, never through a float."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def truncate_to_millis(instant: datetime) -> datetime:
    """Return the instant cut to milliseconds, as MongoDB keeps it, so that equal stays equal after a read."""
    return instant - timedelta(microseconds=instant.microsecond % 1000)


def from_epoch_millis(millis: int) -> datetime:
    """Return the instant that many milliseconds after 1970-01-01T00:00:00Z, without float rounding."""
    return _EPOCH + timedelta(milliseconds=millis)


def to_epoch_millis(instant: datetime) -> int:
    """Return the milliseconds since 1970-01-01T00:00:00Z, cut, without float rounding."""
    return (instant - _EPOCH) // _MILLISECOND
