"""Knows, for the call in progress, whether the audit has its event yet.

Set by the audit layer around each call, marked by whoever has stored an event; the layer records what stayed unmarked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class AuditTrail:
    """What one call has left in the audit."""

    def __init__(self) -> None:
        self.has_event = False


_current: ContextVar[AuditTrail | None] = ContextVar("audit_trail", default=None)


@contextmanager
def audit_trail() -> Iterator[AuditTrail]:
    """Follow one call."""
    trail = AuditTrail()
    token = _current.set(trail)
    try:
        yield trail
    finally:
        _current.reset(token)


def mark_event_stored() -> None:
    """Note that an event of the call in progress is stored; outside of calls this is nothing."""
    trail = _current.get()
    if trail is not None:
        trail.has_event = True
