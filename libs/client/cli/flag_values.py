"""Reads the small languages of flags: moments, spans, `key=value`, headers, and files that may be `-`.

What does not parse is a usage error that names the flag; nothing is called then.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
STDIN = "-"


def span(text: str, flag: str) -> timedelta:
    """Return a span such as `500ms`, `30s`, `5m`, `2h` or `1d`."""
    found = _SPAN.fullmatch(text)
    if not found:
        raise typer.BadParameter(f"{text!r} is not a span such as 500ms, 30s, 5m, 2h or 1d", param_hint=flag)
    try:
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    except OverflowError as error:
        raise typer.BadParameter(f"{text!r} is too long", param_hint=flag) from error


def optional_span(text: str | None, flag: str) -> timedelta | None:
    """Return a span where one was given."""
    return None if text is None else span(text, flag)


def moment(text: str | None, flag: str) -> datetime | None:
    """Return an instant where one was given: RFC 3339 with its offset, `2h` for two hours ago, `+2h` for ahead."""
    if text is None:
        return None
    if _SPAN.fullmatch(text.removeprefix("+")):
        distance = span(text.removeprefix("+"), flag)
        try:
            return datetime.now(UTC) + (distance if text.startswith("+") else -distance)
        except OverflowError as error:
            raise typer.BadParameter(f"{text!r} leads out of the years 1 to 9999", param_hint=flag) from error
    value = local_or_instant(text, flag)
    if value.utcoffset() is None:
        raise typer.BadParameter(f"{text!r} needs an offset, such as {text}Z", param_hint=flag)
    return value


def local_or_instant(text: str, flag: str) -> datetime:
    """Return a datetime in UTC for RFC 3339 text, a naive one for text without an offset."""
    try:
        value = datetime.fromisoformat(text)
        return value if value.utcoffset() is None else value.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is not a time such as 2026-12-01T09:00 or 2026-12-01T09:00:00Z", param_hint=flag
        ) from error


def pairs(texts: Iterable[str], flag: str) -> dict[str, str]:
    """Return what `key=value` texts say."""
    found: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{text!r} is not key=value", param_hint=flag)
        found[key] = value
    return found


def header(text: str, flag: str) -> tuple[str, str]:
    """Return name and value of a `Name: value` text."""
    name, separator, value = text.partition(":")
    if not separator or not name.strip():
        raise typer.BadParameter(f"{text.split(':', maxsplit=1)[0]!r} is not 'Name: value'", param_hint=flag)
    return name.strip(), value.strip()


def secret_header(text: str, flag: str) -> tuple[str, str]:
    """Return name and value of a `Name: value` or `Name: @file` text: command lines are seen by others, files not."""
    name, value = header(text, flag)
    return (name, read_text(value[1:], flag).strip()) if value.startswith("@") else (name, value)


def read_text(path: str, flag: str) -> str:
    """Return what a file holds, or stdin for `-`."""
    try:
        return sys.stdin.read() if path == STDIN else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}", param_hint=flag) from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path} is not UTF-8 text", param_hint=flag) from error
