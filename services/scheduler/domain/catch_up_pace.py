"""Spreads the fires that were missed while nobody could run them, so that an outage does not end in a storm.

Each missed fire gets a slot at the rate that the installation allows. Orgs have lanes of their own and share the rate:
one org's thousands of missed fires do not stand in front of another's ten. While a further lane joins in, those slots
that were given before keep theirs, so the rate may be passed for that while.
"""

from __future__ import annotations

from datetime import datetime, timedelta


class CatchUpPace:
    """The next free slot of each org that has missed fires."""

    def __init__(self, per_second: float) -> None:
        self._spacing = timedelta(seconds=1 / per_second)
        self._next: dict[str, datetime] = {}

    def slot(self, org_id: str, now: datetime) -> datetime:
        """Return when the next missed fire of an org may run: now, if its lane is free."""
        self._next = {org: at for org, at in self._next.items() if at > now}
        slot = self._next.get(org_id, now)
        lanes = len(self._next) + (org_id not in self._next)
        self._next[org_id] = slot + self._spacing * lanes
        return slot
