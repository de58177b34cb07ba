"""What a replica makes of MongoDB's answer to `hello`."""

from __future__ import annotations

from typing import Any, cast

import pytest

from libs.common.testing.fake_clock import FakeClock
from services.scheduler.adapters.mongo.clock_check import DatabaseCheck


class Database:
    def __init__(self, clock: FakeClock, answer: dict[str, Any]) -> None:
        self._clock = clock
        self._answer = answer

    async def command(self, _name: str) -> dict[str, Any]:
        return {"localTime": self._clock.now(), "isWritablePrimary": True, **self._answer}


async def checked(answer: dict[str, Any]) -> DatabaseCheck:
    clock = FakeClock()
    check = DatabaseCheck(cast("Any", Database(clock, answer)), clock)
    await check.run_once()
    return check


@pytest.mark.parametrize("answer", [{"setName": "rs0"}, {"msg": "isdbgrid"}])
async def test_a_primary_of_a_replica_set_will_do(answer: dict[str, Any]) -> None:
    check = await checked(answer)
    assert (check.check_primary(), check.check_replica_set()) == (None, None)


async def test_a_lone_server_is_said_to_be_one() -> None:
    check = await checked({})
    assert check.check_primary() is None
    assert "lone server" in (check.check_replica_set() or "")


async def test_nothing_is_held_against_a_database_that_has_not_answered() -> None:
    clock = FakeClock()
    check = DatabaseCheck(cast("Any", Database(clock, {})), clock)
    assert check.check_replica_set() is None
    assert check.check_primary() == "the database has not answered yet"
