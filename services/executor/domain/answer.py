"""A target's answer within the bounds in which it is kept, and what its headers tell of a rate limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from datetime import datetime
from typing import Protocol

from libs.common.value_type import value_type
from services.executor.domain.attempt import Header

MAX_HEADERS = 100
"""Header lines kept of an answer; further ones are dropped."""
MAX_HEADER_BYTES = 32 * 1024
"""Bytes of header names and values kept of an answer; lines beyond are dropped."""
HEAD_BYTES = 4 * 1024
"""Bytes of a large answer that travel with the report, so that reading it shows something at once."""
SHORT_BYTES = 1024
"""Bytes kept of an answer whose job does not want it stored."""


class AnswerSource(Protocol):
    """The kept bytes of an answer that is too large for a report, as they are to be stored."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, at most 256 KiB at a time; may be called again for a repeated upload."""
        ...

    def close(self) -> None:
        """Let go of the bytes; harmless when repeated."""
        ...


@value_type
class Answer:
    """What is kept of an answer. Either `body` holds the stored bytes, or `source` does when they are many."""

    headers: tuple[Header, ...]
    content_type: str
    body: bytes = field(repr=False)
    source: AnswerSource | None
    head: bytes = field(repr=False)
    """The first bytes, before compression; used when the rest travels apart or is lost."""
    encoding: str
    """The compression of the stored bytes: empty or `zstd`."""
    stored_size_bytes: int
    """Bytes kept, before compression."""
    total_size_bytes: int
    """Bytes that the target sent or announced; -1 when not known."""
    truncated: bool
    """The answer was longer than what is kept."""
    sha256: bytes
    """Of the kept bytes, before compression."""
    warning: str = ""


@value_type
class RateLimitObservation:
    """What a target told of its rate limit."""

    family: str
    """The header family it came from: `openai`, `anthropic`, `ietf`, `x-ratelimit` or `retry-after`."""
    remaining_requests: int = -1
    """Requests left in the window; -1: not told."""
    remaining_tokens: int = -1
    """Tokens left in the window; -1: not told."""
    reset_time: datetime | None = None
    """When the window that is closest to used up resets."""


def bounded_headers(lines: Iterable[tuple[str, str]]) -> tuple[Header, ...]:
    """Return the first header lines that fit the bounds. Cookies count as sensitive: they are the target's secrets."""
    kept: list[Header] = []
    size = 0
    for name, value in lines:
        size += len(name) + len(value)
        if len(kept) >= MAX_HEADERS or size > MAX_HEADER_BYTES:
            break
        kept.append(Header(name, readable(value), sensitive=name.lower() == "set-cookie"))
    return tuple(kept)


def readable(text: str) -> str:
    """Return a header's text without bytes that are no UTF-8: they are lone surrogates here, which no report holds."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
