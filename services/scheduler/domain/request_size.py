"""Bounds what a granted attempt takes in a reply, before it is granted: what does not fit must not be leased."""

from __future__ import annotations

from services.scheduler.domain.job import Target
from services.scheduler.domain.request_body import largest_body

FRAME_BYTES = 2048
"""More than the ids, instants, signing secrets and policies of one attempt."""


def largest_request(target: Target) -> int:
    """Return a number of bytes that an attempt of the target does not pass."""
    headers = sum(len(header.name.encode()) + len(header.value.encode()) + 16 for header in target.headers)
    return FRAME_BYTES + len(target.url) + headers + largest_body(target)
