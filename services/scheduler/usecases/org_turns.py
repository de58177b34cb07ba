"""Looks past the orgs whose backlog fills a look, so that it does not stand in front of the others (promise P7).

What is due is found oldest first, which costs one seek while nothing is due. When a look comes back full, all of it may
be one org's, and another org's single fire stands behind it. So a quarter of a full look is for others: it is looked
again for what belongs to none of the orgs just seen, up to three times, should the next one fill its part, too.

To look past a backlog is to walk over its index keys, some microseconds each. So it is done once a second at most, and
less often where it takes long; an org with little waits that much longer at worst, and never for the backlog's end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from libs.common.clock import Clock

PAUSE_SECONDS = 1.0
"""The least time between two looks past a backlog."""
LARGEST_PART = 0.25
"""The part of the time that looking past backlogs may take."""
LOOKS = 3


class OfOrg(Protocol):
    """Something that an org waits for."""

    @property
    def org_id(self) -> str:
        """The org."""
        ...


Item = TypeVar("Item", bound=OfOrg)
Find = Callable[[int, Collection[str]], Awaitable[Sequence[Item]]]
"""Finds what is due, oldest first: at most so many, and without those of some orgs."""


@dataclass(frozen=True, slots=True)
class Look(Generic[Item]):
    """What a look found: the oldest first, then others'; `full` when there may be more."""

    found: list[Item]
    full: bool


class OrgTurns:
    """The looks at one kind of thing that comes due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = clock.monotonic()

    async def look(self, find: Find[Item], limit: int, *, takes: bool = False) -> Look[Item]:
        """Find at most `limit`, so that no org's backlog hides the others for long.

        Where finding takes what it finds, the others' part is kept free from the start.
        """
        others = limit // 4
        most = limit - others if takes else limit
        found = list(await find(most, frozenset()))
        if len(found) < most:
            return Look(found, full=False)
        began = self._clock.monotonic()
        if others and began >= self._next:
            more = await self._past(find, {item.org_id for item in found}, others)
            found = found[: limit - len(more)] + more
            took = self._clock.monotonic() - began
            self._next = began + max(PAUSE_SECONDS, took / LARGEST_PART)
        return Look(found, full=True)

    async def _past(self, find: Find[Item], orgs: set[str], room: int) -> list[Item]:
        """Find what belongs to other orgs; each look may fill half of what is left, so that none hides the next."""
        found: list[Item] = []
        for looks_left in reversed(range(LOOKS)):
            left = room - len(found)
            part = max(left // 2, 1) if looks_left else left
            more = await find(part, frozenset(orgs)) if left else ()
            found += more
            orgs.update(item.org_id for item in more)
            if len(more) < part:
                break
        return found
