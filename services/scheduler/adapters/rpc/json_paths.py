"""Refuses at creation the JSONPaths that no executor evaluates: a check that can never hold would fail every execution.

The same bounds as the executor's: no functions that run a user's regular expression, no query in a filter that may find
several values, and few descents, selectors in lists and terms of filters, for each multiplies the work.
"""

from __future__ import annotations

import math

import jsonpath_rfc9535 as jsonpath
from jsonpath_rfc9535.filter_expressions import Expression, FilterQuery
from jsonpath_rfc9535.parse import Parser
from jsonpath_rfc9535.tokens import TokenStream

MAX_LENGTH = 500
MAX_DESCENTS = 1
MAX_BRANCHES = 16


class _BoundedParser(Parser):
    """Reads no query inside a filter that may find several values."""

    def parse_root_query(self, stream: TokenStream) -> Expression:
        """Read a query from the whole answer."""
        return _single(super().parse_root_query(stream))

    def parse_relative_query(self, stream: TokenStream) -> Expression:
        """Read a query from the value that is filtered."""
        return _single(super().parse_relative_query(stream))


class _BoundedPaths(jsonpath.JSONPathEnvironment):
    """JSONPath without the functions that run a user's regular expression."""

    parser_class = _BoundedParser

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
        return f"has more than {MAX_DESCENTS} descent `..`"
    try:
        query = _BoundedPaths().compile(path)
    except (jsonpath.JSONPathError, ValueError, RecursionError) as error:
        return f"is not an RFC 9535 JSONPath that we evaluate: {str(error)[:200]}"
    terms = 1 + path.count("&&") + path.count("||")
    if terms * math.prod(len(segment.selectors) for segment in query.segments) > MAX_BRANCHES:
        return f"multiplies the work by more than {MAX_BRANCHES}, by its lists of selectors and its filters' terms"
    return None


def _single(expression: Expression) -> Expression:
    if isinstance(expression, FilterQuery) and not expression.query.singular_query():
        raise jsonpath.JSONPathSyntaxError("a query in a filter may find one value at most", token=expression.token)
    return expression
