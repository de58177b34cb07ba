"""The texts for dates and times in the API: fixed shapes of ASCII digits, refused rather than guessed.

Python's own `fromisoformat` also takes week dates, basic formats, offsets and, in newer versions, 24:00; a format that
is accepted by accident can never be taken back. So the shape is checked first.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time

from libs.common.errors import FieldViolation, InvalidArgumentError

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MINUTES = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_SECONDS = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?")


def parse_time(text: str, field: str) -> time:
    """Return the time of `HH:MM`, 00:00 to 23:59, or raise INVALID_TIME on the field."""
    if not _MINUTES.fullmatch(text):
        raise InvalidArgumentError.of(field, "INVALID_TIME", f"{text!r} is not a time HH:MM between 00:00 and 23:59")
    return time.fromisoformat(text)


def parse_local(date_text: str, time_text: str, field: str = "one_time.local") -> datetime:
    """Return the reading of `YYYY-MM-DD` and `HH:MM` or `HH:MM:SS`.

    Raises:
        InvalidArgumentError: INVALID_DATE on the field's `date`, INVALID_TIME on its `time`, or both.
    """
    violations = []
    day = _parse_date(date_text)
    if day is None:
        violations.append(FieldViolation(f"{field}.date", "INVALID_DATE", f"{date_text!r} is not a date YYYY-MM-DD"))
    if not _SECONDS.fullmatch(time_text):
        description = f"{time_text!r} is not a time HH:MM or HH:MM:SS between 00:00 and 23:59:59"
        violations.append(FieldViolation(f"{field}.time", "INVALID_TIME", description))
    if day is None or violations:
        raise InvalidArgumentError(violations)
    return datetime.combine(day, time.fromisoformat(time_text))


def _parse_date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:  # The shape is right, but there is no such day.
        return None
