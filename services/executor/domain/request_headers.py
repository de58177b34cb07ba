"""The header lines of an attempt's POST: the user's, ours, and the signature.

Names and values are checked again here although the scheduler did so when the job was made: a line break that slips
through would let one header become another request. Names that frame the message or that say who we are cannot be set
by a user. Across origins the sensitive lines and the signature stay behind; the Idempotency-Key goes along, since it
is what keeps a redirected request from counting twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from services.executor.domain.attempt import Grant, Header, TargetRequest
from services.executor.domain.signature import signature_headers

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code != 0x09)
"""All control characters but the tab, which is blank space."""
_BREAKS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_RESERVED = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
    | {"proxy-authorization", "proxy-connection", "idempotency-key", "webhook-id", "webhook-timestamp"}
    | {"webhook-signature", "traceparent"}
)
_DEFAULTS = (("Accept", "*/*"), ("Accept-Encoding", "identity"), ("Content-Type", "application/json"))
_RESERVED_PREFIX = "punctual-"
_ALWAYS_SENSITIVE = frozenset({"authorization", "cookie", "x-api-key", "api-key", "proxy-authorization"})


class BadHeaderError(ValueError):
    """A header that must not be sent; the message names it and never its value."""


def user_headers(request: TargetRequest) -> list[Header]:
    """Return the user's lines, checked, with those marked sensitive that always are.

    Raises:
        BadHeaderError: one is malformed or reserved.
    """
    return [_checked(header) for header in request.headers]


def request_headers(grant: Grant, user: Sequence[Header], start: datetime, user_agent: str) -> list[tuple[str, str]]:
    """Return all lines of the attempt's POST to its own origin, in the order in which they are sent.

    `start` is the attempt's: the signature's timestamp, and the deadline once the total timeout is added.
    """
    execution_id, request = grant.lease.execution_id, grant.request
    lines = lines_for_any_origin(grant, user, start, user_agent)
    lines += [(line.name, line.value) for line in user if line.sensitive]
    lines += signature_headers(execution_id, int(start.timestamp()), request.body, request.signing_secrets).items()
    return lines


def lines_for_any_origin(
    grant: Grant, user: Sequence[Header], start: datetime, user_agent: str
) -> list[tuple[str, str]]:
    """Return the lines that may go to another origin than the job's own: all but the secrets and the signature."""
    named = {line.name.lower() for line in user}
    lines = [(line.name, line.value) for line in user if not line.sensitive]
    lines += [line for line in (("User-Agent", user_agent), *_DEFAULTS) if line[0].lower() not in named]
    lines += (
        ("Idempotency-Key", grant.lease.execution_id),
        ("Punctual-Attempt", str(grant.attempt_number)),
        ("Punctual-Fire-Time", rfc3339(grant.fire_time)),
        ("Punctual-Deadline", rfc3339(start + timedelta(seconds=grant.request.total_timeout))),
    )
    if grant.trace_parent:
        lines.append(("traceparent", grant.trace_parent))
    return lines


def request_head(start: str, lines: Sequence[tuple[str, str]], body_size: int) -> bytes:
    """Return the head of a POST as it is sent: its start, lines as above, and the length of its body.

    `start` is the request line and the Host, each with its line break.

    Raises:
        BadHeaderError: there is a control character somewhere, so that a line might be more than one.
    """
    text = "".join([f"{name}: {value}\r\n" for name, value in lines])
    head = f"{start}{text}Content-Length: {body_size}\r\n\r\n".encode()
    # The last look at all these lines, wherever their values came from: two controls end each of them, and the head.
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * (len(lines) + 4):
        raise BadHeaderError("the head of the request holds a control character")
    return head


def rfc3339(instant: datetime) -> str:
    """Return the instant in UTC with milliseconds, as `2026-01-01T00:00:00.000Z`."""
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    return instant.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _checked(header: Header) -> Header:
    name = header.name.lower()
    if not _TOKEN.match(header.name):
        raise BadHeaderError("a header's name is not a token")
    if name in _RESERVED or name.startswith(_RESERVED_PREFIX):
        raise BadHeaderError(f"the header {name} is reserved")
    if _BREAKS.search(header.value):
        raise BadHeaderError(f"the value of the header {name} holds a control character")
    if name in _ALWAYS_SENSITIVE and not header.sensitive:
        return Header(header.name, header.value, sensitive=True)
    return header
