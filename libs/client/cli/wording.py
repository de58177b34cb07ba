"""Says values of the API in the words of a terminal: instants, spans, states, schedules."""

from __future__ import annotations

from datetime import UTC

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from punctual.v1.schedule_pb2 import MONTH_END_LAST_DAY, Schedule, Weekday

NOTHING = "-"
_FIRST_OF_C1, _LAST_OF_C1 = "\x7f", "\x9f"


def harmless(text: str) -> str:
    """Return text that cannot command the terminal: control characters but the line end show as what they are.

    Names, notes and error messages are other people's input; an escape sequence in one must not reach an operator's
    terminal.
    """
    return "".join(
        character
        if character == "\n" or (character >= " " and not _FIRST_OF_C1 <= character <= _LAST_OF_C1)
        else f"\\x{ord(character):02x}"
        for character in text
    )


def instant(moment: Timestamp) -> str:
    """Return an instant in UTC, with milliseconds where it has some; unset: a dash."""
    if moment == Timestamp():
        return NOTHING
    spec = "milliseconds" if moment.nanos else "seconds"
    return moment.ToDatetime(UTC).isoformat(timespec=spec).replace("+00:00", "Z")


def span(duration: Duration) -> str:
    """Return a short span in milliseconds, a longer one in seconds."""
    millis = duration.ToMilliseconds()
    return f"{millis} ms" if abs(millis) < 10_000 else f"{millis / 1000:.1f} s"


def label_text(labels: dict[str, str]) -> str:
    """Return labels in a stable order."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or NOTHING


def short_name(enum_name: str, prefix: str) -> str:
    """Return an enum value's name without its enum's prefix; the unspecified one as a dash."""
    name = enum_name.removeprefix(prefix)
    return NOTHING if name == "UNSPECIFIED" else name


def schedule(value: Schedule) -> str:
    """Return a schedule as one would give it on the command line."""
    zone = value.time_zone or "UTC"
    match value.WhichOneof("rule"):
        case "one_time" if value.one_time.HasField("local"):
            return f"at {value.one_time.local.date}T{value.one_time.local.time} {zone}"
        case "one_time":
            return f"at {instant(value.one_time.instant)}"
        case "daily":
            return f"daily {value.daily.time} {zone}"
        case "weekly":
            days = ",".join(Weekday.Name(day).removeprefix("WEEKDAY_").lower() for day in value.weekly.days)
            return f"weekly {days}@{value.weekly.time} {zone}"
        case "monthly":
            last = " or last day" if value.monthly.month_end == MONTH_END_LAST_DAY else ""
            return f"monthly {value.monthly.day}@{value.monthly.time}{last} {zone}"
        case "cron":
            return f"cron {value.cron.expression} {zone}"
        case _:
            return NOTHING
