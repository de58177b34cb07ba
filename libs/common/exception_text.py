"""Exceptions as text that may be logged: where they came from, and only as much of what they say as holds no data.

A library's exception quotes what it was given: pydantic the refused input, PyMongo the whole document of a failed
write. Names of fields cannot mask that, so such texts are left out; the type, MongoDB's name for its error code and the
traceback stay, and they tell what went wrong. Our own errors are sentences without secrets by rule, and a plain
RuntimeError or TypeError is about code.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping

WITHHELD = "(text withheld)"
_OURS = ("libs", "services", "tools")
# These quote the value that was wrong: int("..."), {}["..."].
_QUOTING = (ValueError, LookupError)
_MAX_CHAIN = 10


def describe(error: BaseException) -> str:
    """Return the exception's type, and its text if that holds no data."""
    kind = type(error)
    module = kind.__module__
    name = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    root = module.partition(".")[0]
    is_plain = root == "builtins" and not isinstance(error, _QUOTING)
    text = str(error) if root in _OURS or is_plain else f"{_code_name(error)}{WITHHELD}"
    return f"{name}: {text}" if text else name


def first_of_group(error: BaseException) -> BaseException:
    """Return the exception itself, or the first one that is no group in it."""
    return first_of_group(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def format_exception(error: BaseException) -> str:
    """Return the traceback with all causes, as Python prints it but for what is withheld."""
    parts: list[str] = []
    current: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if current is None:
            break
        frames = "".join(traceback.format_tb(current.__traceback__))
        inner = "".join(f"\n  in the group: {format_exception(e)}" for e in _members(current))
        parts.append(f"Traceback (most recent call last):\n{frames}{describe(current)}{inner}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n\nThen, because of the above or while it was handled:\n\n".join(reversed(parts))


def _code_name(error: BaseException) -> str:
    """Return MongoDB's name for its error code, such as `AuthenticationFailed `, or nothing."""
    details = getattr(error, "details", None)
    name = details.get("codeName") if isinstance(details, Mapping) else None
    return f"{name} " if isinstance(name, str) and name.isidentifier() else ""


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()
