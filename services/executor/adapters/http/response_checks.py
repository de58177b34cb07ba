"""Checks on answers with a status that succeeds: a 200 that says "error" inside is no success.

A check is the user's program on the target's data, so it is bounded: the size of what is parsed, and the path (see
`libs.common.json_paths`). What goes beyond the bounds fails its check, and says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import jsonpath_rfc9535 as jsonpath

from libs.common.json_paths import BAD_PATH, compile_path
from services.executor.adapters.http.answer_body import Body
from services.executor.domain.attempt import JsonPathEquals, JsonPathExists, MinSize, ResponseCheck

MAX_JSON_BYTES = 4 * 1024 * 1024
_IN_PLACE_BYTES = 32 * 1024


class ResponseChecker:
    """Evaluates the checks of one job on one answer."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._compile = lru_cache(maxsize=1024)(compile_path)

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
        except BAD_PATH:
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
            except BAD_PATH:
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
