"""The attempt as the scheduler grants it: an exclusive right, the request to make, and the limits to keep.

Values only. Instants are aware UTC datetimes, spans are seconds as float (they feed timers), sizes are bytes. Whoever
holds a grant may POST once, at or after `due_time`, while its lease holds; the fencing token tells its report from
those of earlier and later holders.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import NamedTuple

from libs.common.value_type import value_type


class Lease(NamedTuple):
    """Names an exclusive right to one attempt: the execution and the token that grows with each lease of it.

    A tuple, since it is looked up by: tuples compare and hash without a line of Python.
    """

    execution_id: str
    fencing_token: int


@value_type
class Header:
    """A header line. A sensitive value is masked wherever it shows up, and is sent to its own origin only."""

    name: str
    value: str = field(repr=False)
    sensitive: bool = False


@value_type
class JsonPathExists:
    """Holds when the RFC 9535 path finds at least one value in the answer."""

    path: str


@value_type
class JsonPathEquals:
    """Holds when the first value that the RFC 9535 path finds equals the value of `json_value`, a JSON text."""

    path: str
    json_value: str


@value_type
class MinSize:
    """Holds when the target sent at least this many bytes."""

    size_bytes: int


ResponseCheck = JsonPathExists | JsonPathEquals | MinSize


@value_type
class ResponsePolicy:
    """What counts as a good answer, and how much of it is kept."""

    success_codes: frozenset[int]
    """The status codes that succeed; empty means 200 to 299."""
    checks: tuple[ResponseCheck, ...]
    """All must hold on an answer with a status that succeeds."""
    max_size_bytes: int
    """The most bytes that are read and kept."""
    store_full_response: bool
    """False keeps the first KiB only."""

    def succeeds(self, status_code: int) -> bool:
        """Return whether the status alone counts as success."""
        if self.success_codes:
            return status_code in self.success_codes
        return 200 <= status_code <= 299


@value_type
class TargetRequest:
    """The POST to make, ready to send. Its repr shows neither body nor secrets, so that a traceback leaks nothing."""

    url: str = field(repr=False)
    headers: tuple[Header, ...]
    body: bytes = field(repr=False)
    total_timeout: float
    """Seconds from the start to the last byte of the answer, over all redirects."""
    connect_timeout: float
    """Seconds until the connection stands."""
    first_byte_timeout: float
    """Seconds from the sent request to the head of the answer."""
    max_redirects: int
    signing_secrets: tuple[bytes, ...] = field(repr=False)
    """The org's live signing keys, newest first; empty: the request goes unsigned."""
    response_policy: ResponsePolicy


@value_type
class AttemptLimits:
    """The request rates that executors keep together; zero means not limited here."""

    job_requests_per_minute: int
    host_requests_per_minute: int
    host_concurrent_requests: int
    host_generation: int
    """Part of the name of what is shared about the host; a reset makes a new one."""


@value_type
class Grant:
    """An exclusive right to one attempt, with all that it needs."""

    lease: Lease
    job_id: str
    org_id: str
    attempt_number: int
    due_time: datetime
    """The POST starts at or after this instant of the scheduler's clock, never before."""
    fire_time: datetime
    request: TargetRequest
    limits: AttemptLimits
    trace_parent: str = ""

    @property
    def trace_id(self) -> str:
        """Return the trace id inside `trace_parent`, or nothing when there is no well-formed one."""
        parts = self.trace_parent.split("-")
        return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""


@value_type
class Refusal:
    """An execution that was not granted, and when to ask again; None: never, somebody else sees to it or it is over."""

    execution_id: str
    reason: str
    retry_time: datetime | None = None
