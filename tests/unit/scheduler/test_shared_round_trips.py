"""Shared round trips: who goes together, who goes alone, and what each learns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from services.scheduler.adapters.audit_trail import audit_trail, mark_event_stored
from services.scheduler.adapters.mongo.shared_round_trips import TURNS, SharedRoundTrips


class Database:
    """Answers with the items themselves, when it is let."""

    def __init__(self) -> None:
        self.trips: list[tuple[str, list[int]]] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def travel(self, key: str, items: Sequence[int]) -> Sequence[int]:
        self.trips.append((key, list(items)))
        mark_event_stored()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return items


async def under_way() -> None:
    """Let all that can go on go on, until the database holds it up."""
    for _ in range(2 * TURNS):
        await asyncio.sleep(0)


async def test_who_comes_during_a_round_trip_goes_with_the_next():
    database = Database()
    shared = SharedRoundTrips(database.travel)
    first = asyncio.create_task(shared.ask("acme", 1))
    await under_way()
    others = [asyncio.create_task(shared.ask("acme", number)) for number in (2, 3, 4)]
    await under_way()
    assert database.trips == [("acme", [1])]
    database.open.set()
    assert await asyncio.gather(first, *others) == [1, 2, 3, 4]
    assert database.trips == [("acme", [1]), ("acme", [2, 3, 4])]


async def test_keys_do_not_wait_for_each_other():
    database = Database()
    shared = SharedRoundTrips(database.travel)
    asked = [asyncio.create_task(shared.ask(key, 1)) for key in ("acme", "other")]
    await under_way()
    assert database.trips == [("acme", [1]), ("other", [1])]
    database.open.set()
    assert await asyncio.gather(*asked) == [1, 1]


async def test_a_round_trip_carries_no_more_than_it_may():
    database = Database()
    database.open.set()
    shared = SharedRoundTrips(database.travel, most=2)
    assert await asyncio.gather(*(shared.ask("acme", number) for number in range(5))) == [0, 1, 2, 3, 4]
    assert [len(items) for _, items in database.trips] == [2, 2, 1]


async def test_a_failure_is_that_of_all_who_shared_it_and_of_nobody_else():
    database = Database()
    shared = SharedRoundTrips(database.travel)
    database.open.set()
    database.error = ConnectionError("gone")
    ends = await asyncio.gather(*(shared.ask("acme", number) for number in range(2)), return_exceptions=True)
    assert ends == [database.error, database.error]
    database.error = None
    assert await shared.ask("acme", 3) == 3


async def test_one_who_gives_up_takes_nobody_with_it():
    database = Database()
    shared = SharedRoundTrips(database.travel)
    leaver, stayer = (asyncio.create_task(shared.ask("acme", number)) for number in (1, 2))
    await under_way()
    leaver.cancel()
    database.open.set()
    assert await stayer == 2
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_a_round_trip_belongs_to_no_call():
    database = Database()
    database.open.set()
    with audit_trail() as trail:
        await SharedRoundTrips(database.travel).ask("acme", 1)
    assert not trail.has_event
