"""Refuses JSONPaths that no executor evaluates at creation: a check that can never hold would fail every execution."""

from __future__ import annotations

from libs.common.json_paths import BAD_PATH, PathTooCostlyError, compile_path

MAX_LENGTH = 500


def path_problem(path: str) -> str | None:
    """Return why a JSONPath is refused, or None; one that is too long anyway is not looked at."""
    if not path or len(path) > MAX_LENGTH:
        return None
    try:
        compile_path(path)
    except PathTooCostlyError as error:
        return str(error)
    except BAD_PATH as error:
        return f"is not an RFC 9535 JSONPath that we evaluate: {str(error)[:200]}"
    return None
