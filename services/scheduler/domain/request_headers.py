"""The rules for a job's request headers: grammar, sizes, names that are ours, and names whose values are secrets."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from libs.common.errors import FieldViolation
from services.scheduler.domain.job import Header

MAX_HEADERS = 64
MAX_HEADERS_BYTES = 32 * 1024

MASK = "********"
"""What a sensitive value looks like in every reply; sent back in an update, it stands for the stored value."""

# RFC 9110: a token; a value of visible characters, spaces and tabs. CR, LF and NUL would smuggle further headers.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

RESERVED = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Names that Punctual or the HTTP protocol sets; so are those that begin with `punctual-`, `webhook-` or `proxy-`."""

_RESERVED_PREFIXES = ("punctual-", "webhook-", "proxy-")

_ALWAYS_SENSITIVE = frozenset(
    {"authorization", "cookie", "x-api-key", "api-key", "x-auth-token", "x-goog-api-key", "x-amz-security-token"}
)
_SENSITIVE_PART = re.compile("secret|token|password|apikey|api-key|authorization|credential")


def with_sensitivity(header: Header) -> Header:
    """Return the header marked sensitive where its name says so, whatever the caller said."""
    name = header.name.lower()
    if header.sensitive or not (name in _ALWAYS_SENSITIVE or _SENSITIVE_PART.search(name)):
        return header
    return replace(header, sensitive=True)


def keep_masked(headers: Sequence[Header], stored: Sequence[Header]) -> tuple[Header, ...]:
    """Return the headers, with the stored secret of the same name where its mask was sent back unchanged.

    A name that occurs twice is matched in order. What is kept stays sensitive: else the mask would be a way to read it.
    """
    kept: defaultdict[str, deque[Header]] = defaultdict(deque)
    for header in stored:
        kept[header.name.lower()].append(header)
    merged = []
    for header in headers:
        same_name = kept[header.name.lower()]
        before = same_name.popleft() if same_name else None
        masked = header.value == MASK and before is not None and before.sensitive
        merged.append(replace(before, name=header.name) if masked and before else header)
    return tuple(merged)


def check_header_count(headers: int, field: str) -> Iterator[FieldViolation]:
    """Yield what is wrong with a number of headers, for those who read them, too."""
    if headers > MAX_HEADERS:
        yield FieldViolation(field, "TOO_MANY_HEADERS", f"{headers} headers, at most {MAX_HEADERS} are allowed")


def check_headers(headers: Sequence[Header], field: str) -> Iterator[FieldViolation]:
    """Yield what is wrong with a job's headers."""
    too_many = list(check_header_count(len(headers), field))
    if too_many:
        yield from too_many
        return
    if sum(len(header.name) + len(header.value) for header in headers) > MAX_HEADERS_BYTES:
        yield FieldViolation(field, "HEADERS_TOO_LARGE", f"names and values exceed {MAX_HEADERS_BYTES} bytes")
    for index, header in enumerate(headers):
        path = f"{field}[{index}]"
        name = header.name.lower()
        if not _TOKEN.fullmatch(header.name):
            yield FieldViolation(f"{path}.name", "INVALID_HEADER_NAME", "is not an RFC 9110 token")
        elif name in RESERVED or name.startswith(_RESERVED_PREFIXES):
            yield FieldViolation(f"{path}.name", "RESERVED_HEADER", f"{header.name} is set by Punctual itself")
        if header.sensitive and header.value == MASK:
            yield FieldViolation(
                f"{path}.value", "MASKED_VALUE", f"is the mask of a reply, and no stored {header.name} is there to keep"
            )
        if not _VALUE.fullmatch(header.value):
            yield FieldViolation(
                f"{path}.value",
                "INVALID_HEADER_VALUE",
                "holds CR, LF, NUL or another control character, or one that Latin-1 lacks",
            )
