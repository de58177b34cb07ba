"""What is stored of a host that an org's jobs call: the limits that people set, and what executors last saw."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from libs.common.errors import FieldViolation, InvalidArgumentError
from services.scheduler.domain.target_url import split_target_url

MAX_REQUESTS_PER_MINUTE = 600_000
MAX_CONCURRENT_REQUESTS = 10_000
TARGET_WAIT_REASONS = frozenset({"TARGET_RATE_LIMIT", "TARGET_CONCURRENCY", "CIRCUIT_OPEN"})
"""Why executions wait for a host; a reset of it wakes them."""

# Neither a path nor a query: what follows the port must not look like one.
_HOST_PORT = re.compile(r"[^/?]+:[0-9]{1,5}")


class CircuitState(enum.StrEnum):
    """Where a host's circuit stands, as executors last saw it."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(frozen=True, slots=True)
class HostLimits:
    """The limits of an org at a host; 0: the installation's default, and where that is 0, none."""

    max_requests_per_minute: int = 0
    max_concurrent_requests: int = 0

    def over(self, defaults: HostLimits) -> HostLimits:
        """Return these limits with the defaults filled in."""
        return HostLimits(
            self.max_requests_per_minute or defaults.max_requests_per_minute,
            self.max_concurrent_requests or defaults.max_concurrent_requests,
        )


@dataclass(frozen=True, slots=True)
class HostObservation:
    """What an executor last saw of a host."""

    observe_time: datetime
    circuit: CircuitState = CircuitState.CLOSED
    retry_time: datetime | None = None
    wait_reason: str = ""
    rate_limit_hit_count: int = 0


@dataclass(frozen=True, slots=True)
class TargetHost:
    """A host with its port, of one org."""

    org_id: str
    host: str
    limits: HostLimits = HostLimits()
    reset_count: int = 0
    """Part of the name of what executors share about it; each reset begins anew under a new name."""
    observation: HostObservation | None = None
    version: int = 0
    """Grows with each change by a caller; 0: none yet."""


def check_host(host: str) -> str:
    """Return a host with its port as it is stored, such as `api.example.com:443`.

    Raises:
        InvalidArgumentError: it is none.
    """
    if not host:
        raise InvalidArgumentError.of("host", "REQUIRED", "is required")
    if not _HOST_PORT.fullmatch(host):
        raise InvalidArgumentError.of("host", "INVALID_HOST", "must be host:port, such as api.example.com:443")
    try:
        return split_target_url(f"http://{host}", "host").host_port
    except InvalidArgumentError as error:
        raise InvalidArgumentError.of("host", "INVALID_HOST", "has an invalid host or port") from error


def check_limits(limits: HostLimits) -> None:
    """Raise InvalidArgumentError with every violation."""
    violations = list(_violations(limits))
    if violations:
        raise InvalidArgumentError(violations)


def _violations(limits: HostLimits) -> Iterator[FieldViolation]:
    for field, value, most in (
        ("max_requests_per_minute", limits.max_requests_per_minute, MAX_REQUESTS_PER_MINUTE),
        ("max_concurrent_requests", limits.max_concurrent_requests, MAX_CONCURRENT_REQUESTS),
    ):
        if not 0 <= value <= most:
            yield FieldViolation(field, "OUT_OF_RANGE", f"is not within 0 to {most}")
