"""Checks on answers with a status that succeeds: a 200 that says "error" inside is no success.

A check is the user's program on the target's data, so it is bounded: the size of what is parsed, the shape of the
path, no regular expressions. Within the bounds a path costs as much as the answer is long, times a number; without them
twenty characters of it take a second, and forty take for ever. What goes beyond them fails its check, and says so.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import jsonpath_rfc9535 as jsonpath
from jsonpath_rfc9535.filter_expressions import Expression, FilterQuery
from jsonpath_rfc9535.parse import Parser
from jsonpath_rfc9535.tokens import TokenStream

from services.executor.adapters.http.answer_body import Body
from services.executor.domain.attempt import JsonPathEquals, JsonPathExists, MinSize, ResponseCheck

MAX_JSON_BYTES = 4 * 1024 * 1024
_IN_PLACE_BYTES = 32 * 1024
_MAX_DESCENTS = 1
_MAX_BRANCHES = 16
_BAD_PATH = (jsonpath.JSONPathError, ValueError, RecursionError)


class _BoundedParser(Parser):
    """Reads no query inside a filter that may find several values: it would be a loop in a loop over the answer."""

    def parse_root_query(self, stream: TokenStream) -> Expression:
        """Read a query from the whole answer."""
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


class ResponseChecker:
    """Evaluates the checks of one job on one answer."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._compile = lru_cache(maxsize=1024)(_compile)

    async def failed_check(self, checks: Sequence[ResponseCheck], body: Body) -> str | None:
        """Return a sentence about the first check that does not hold, or None when all hold."""
        for number, check in enumerate(checks, start=1):
            if isinstance(check, MinSize) and max(body.total, body.size) < check.size_bytes:
                return f"check {number}: the answer has fewer than {check.size_bytes} bytes"
        if all(isinstance(check, MinSize) for check in checks):
            return None
        if body.truncated or body.size > MAX_JSON_BYTES:
            return "the answer is too large to be checked"
        text = body.read()
        if len(text) <= _IN_PLACE_BYTES and self._are_quick(checks):
            return self._failed_path(checks, text)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._failed_path, checks, text)

    def _are_quick(self, checks: Sequence[ResponseCheck]) -> bool:
        """Return whether no path loops over the answer."""
        try:
            return all(isinstance(check, MinSize) or self._compile(check.path).singular_query() for check in checks)
        except _BAD_PATH:
            return True

    def _failed_path(self, checks: Sequence[ResponseCheck], text: bytes) -> str | None:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return "the answer is not JSON"
        for number, check in enumerate(checks, start=1):
            if isinstance(check, MinSize):
                continue
            try:
                holds = self._holds(check, document)
            except _BAD_PATH:
                return f"check {number}: the path cannot be evaluated"
            if not holds:
                return f"check {number}: the answer does not have what the path asks for"
        return None

    def _holds(self, check: JsonPathExists | JsonPathEquals, document: jsonpath.JSONValue) -> bool:
        found = self._compile(check.path).find_one(document)
        if found is None or isinstance(check, JsonPathExists):
            return found is not None
        expected = json.loads(check.json_value)
        # In Python True equals 1, in JSON it does not.
        return bool(found.value == expected) and isinstance(found.value, bool) is isinstance(expected, bool)


def _compile(path: str) -> jsonpath.JSONPathQuery:
    if path.count("..") > _MAX_DESCENTS:
        raise ValueError("each descent multiplies the work")
    query = _BoundedPaths().compile(path)
    terms = 1 + path.count("&&") + path.count("||")
    if terms * math.prod(len(segment.selectors) for segment in query.segments) > _MAX_BRANCHES:
        raise ValueError("each selector in a list, and each term of a filter, multiplies the work")
    return query


def _single(expression: Expression) -> Expression:
    if isinstance(expression, FilterQuery) and not expression.query.singular_query():
        raise jsonpath.JSONPathSyntaxError("a query in a filter may find one value at most", token=expression.token)
    return expression
