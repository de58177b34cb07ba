"""Instants, spans and attempts as sentences for people say them."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.scheduler.domain.execution import Attempt

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def instant_text(instant: datetime) -> str:
    """Return an instant as RFC 3339 in UTC, with milliseconds only where it has some."""
    timespec = "milliseconds" if instant.microsecond else "seconds"
    return instant.isoformat(timespec=timespec).replace("+00:00", "Z")


def span_text(span: timedelta) -> str:
    """Return a span by its two largest units, such as `2 h 5 min`; below a minute with milliseconds."""
    if span < timedelta(0):
        return f"-{span_text(-span)}"
    if span < timedelta(minutes=1):
        return f"{span.total_seconds():.3f}".rstrip("0").rstrip(".") + " s"
    rest = round(span.total_seconds())
    parts = []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def attempt_text(attempt: Attempt) -> str:
    """Return what came of an attempt, such as `Attempt 1: FAILED, HTTP 503 (HTTP_STATUS).`"""
    status = f", HTTP {attempt.status_code}" if attempt.status_code else ""
    why = f" ({attempt.error_reason})" if attempt.error_reason else ""
    return f"Attempt {attempt.number}: {attempt.outcome.value}{status}{why}."
