"""Refuses at creation the JSONPaths that no executor evaluates: a check that can never hold would fail every execution.

The same bounds as the executor's: no functions that run a user's regular expression, and few descents, for each
multiplies the work.
"""

from __future__ import annotations

import jsonpath_rfc9535 as jsonpath

MAX_LENGTH = 500
MAX_DESCENTS = 2


class _BoundedPaths(jsonpath.JSONPathEnvironment):
    """JSONPath without the functions that run a user's regular expression."""

    def setup_function_extensions(self) -> None:
        """Keep the functions whose work is bounded by their input."""
        super().setup_function_extensions()
        del self.function_extensions["match"]
        del self.function_extensions["search"]


def path_problem(path: str) -> str | None:
    """Return why a JSONPath is refused, or None; one that is too long anyway is not looked at."""
    if not path or len(path) > MAX_LENGTH:
        return None
    if path.count("..") > MAX_DESCENTS:
        return f"has more than {MAX_DESCENTS} descents `..`"
    try:
        _BoundedPaths().compile(path)
    except (jsonpath.JSONPathError, ValueError, RecursionError) as error:
        return f"is not an RFC 9535 JSONPath: {str(error)[:200]}"
    return None
