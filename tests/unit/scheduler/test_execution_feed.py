"""What a watch says of a change stream that cannot go on; a fresh replica set never gets there by itself."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.errors import AutoReconnect, OperationFailure

from libs.common.errors import InvalidArgumentError, OutOfRangeError
from services.scheduler.adapters.mongo.execution_feed import MongoExecutionFeed
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.execution_feed import WatchFilter

SCOPE = OrgScope("acme")
TOKEN = "8265B0C1F2"


class FailingStream:
    """A change stream that opens, and then fails."""

    resume_token = None

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def __aenter__(self) -> FailingStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def try_next(self) -> None:
        raise self._error


class FailingCollection:
    """A collection whose change streams fail, at once or later."""

    def __init__(self, error: Exception, *, later: bool = False) -> None:
        self._error = error
        self._later = later

    async def watch(self, *_: Any, **__: Any) -> FailingStream:
        if not self._later:
            raise self._error
        return FailingStream(self._error)


async def watch(error: Exception, *, token: str = "", later: bool = False) -> None:
    feed = MongoExecutionFeed(FailingCollection(error, later=later))  # type: ignore[arg-type]
    async with feed.open(SCOPE, WatchFilter(), token) as changes:
        assert changes.resume_token == ""
        await changes.next()


@pytest.mark.parametrize("code", [280, 286])
@pytest.mark.parametrize("later", [False, True])
async def test_lost_history_is_out_of_range(code: int, *, later: bool) -> None:
    with pytest.raises(OutOfRangeError) as raised:
        await watch(OperationFailure("no longer in the oplog", code), token=TOKEN, later=later)
    assert raised.value.reason == "RESUME_TOKEN_EXPIRED"


async def test_a_token_that_the_database_cannot_read_is_invalid() -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        await watch(OperationFailure("bad resume token", 260), token=TOKEN)
    assert raised.value.reason == "INVALID_RESUME_TOKEN"


@pytest.mark.parametrize("token", ["", TOKEN])
async def test_a_database_that_is_away_is_not_the_callers_fault(token: str) -> None:
    with pytest.raises(AutoReconnect):
        await watch(AutoReconnect("no primary"), token=token)


async def test_without_a_token_the_databases_word_counts() -> None:
    with pytest.raises(OperationFailure):
        await watch(OperationFailure("not primary", 10107))


async def test_a_step_down_is_not_the_tokens_fault() -> None:
    with pytest.raises(OperationFailure):
        await watch(OperationFailure("not primary", 10107), token=TOKEN)
