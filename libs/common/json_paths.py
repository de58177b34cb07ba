"""JSONPaths whose work is bounded, for those who accept them and those who evaluate them.

A path is a user's program on somebody else's data. Within the bounds it costs as much as the data is long, times a
number; without them twenty characters of it take a second, and forty take for ever.
"""

from __future__ import annotations

import math

import jsonpath_rfc9535 as jsonpath
from jsonpath_rfc9535.filter_expressions import Expression, FilterQuery
from jsonpath_rfc9535.parse import Parser
from jsonpath_rfc9535.tokens import TokenStream

MAX_DESCENTS = 1
MAX_BRANCHES = 16

BAD_PATH = (jsonpath.JSONPathError, ValueError, RecursionError)
"""What a path raises that cannot be read, or not be evaluated."""


class PathTooCostlyError(ValueError):
    """A path that is one, and beyond the bounds; the text says which."""


def compile_path(path: str) -> jsonpath.JSONPathQuery:
    """Return a path ready to be evaluated.

    Raises:
        PathTooCostlyError: it is beyond the bounds.
        JSONPathError, ValueError, RecursionError: it cannot be read.
    """
    if path.count("..") > MAX_DESCENTS:
        raise PathTooCostlyError(f"has more than {MAX_DESCENTS} descent `..`")
    query = _BoundedPaths().compile(path)
    terms = 1 + path.count("&&") + path.count("||")
    if terms * math.prod(len(segment.selectors) for segment in query.segments) > MAX_BRANCHES:
        raise PathTooCostlyError(
            f"multiplies the work by more than {MAX_BRANCHES}, by its lists of selectors and its filters' terms"
        )
    return query


class _BoundedParser(Parser):
    """Reads no query inside a filter that may find several values: it would be a loop in a loop over the data."""

    def parse_root_query(self, stream: TokenStream) -> Expression:
        """Read a query from the whole document."""
        return _single(super().parse_root_query(stream))

    def parse_relative_query(self, stream: TokenStream) -> Expression:
        """Read a query from the value that is filtered."""
        return _single(super().parse_relative_query(stream))


class _BoundedPaths(jsonpath.JSONPathEnvironment):
    """JSONPath without the functions that run a user's regular expression: a bad one would stop the process."""

    parser_class = _BoundedParser

    def setup_function_extensions(self) -> None:
        """Keep the functions whose work is bounded by their input."""
        super().setup_function_extensions()
        del self.function_extensions["match"]
        del self.function_extensions["search"]


def _single(expression: Expression) -> Expression:
    if isinstance(expression, FilterQuery) and not expression.query.singular_query():
        raise jsonpath.JSONPathSyntaxError("a query in a filter may find one value at most", token=expression.token)
    return expression
