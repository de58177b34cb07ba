"""Bounds what a granted attempt takes in a reply, before it is granted: what does not fit must not be leased."""

from __future__ import annotations

from services.scheduler.domain.job import JobDefinition
from services.scheduler.domain.request_body import largest_body

FRAME_BYTES = 2048
"""More than the ids, instants, signing secrets and policies of one attempt, but for the checks of its answer."""


def largest_request(definition: JobDefinition) -> int:
    """Return a number of bytes that an attempt of the job does not pass."""
    target = definition.target
    headers = sum(len(header.name.encode()) + len(header.value.encode()) + 16 for header in target.headers)
    checks = sum(
        len(check.json_path_exists.encode())
        + len(check.json_path_equals.encode())
        + len(check.json_value.encode())
        + 32
        for check in definition.response.checks
    )
    return FRAME_BYTES + len(target.url) + headers + checks + largest_body(target)
