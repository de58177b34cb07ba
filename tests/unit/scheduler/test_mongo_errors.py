"""How the database is spoken to, what of its errors may be passed over, and what a caller may repeat (promise P9)."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo import ReadPreference
from pymongo.errors import AutoReconnect, BulkWriteError, DuplicateKeyError, OperationFailure

from libs.common.errors import UnavailableError
from services.scheduler.adapters.mongo.connection import open_client, redact_uri, translate_error
from services.scheduler.adapters.mongo.duplicate_keys import only_duplicates

DUPLICATE = {"index": 0, "code": 11000, "errmsg": "E11000"}
UNCONFIRMED = {"code": 64, "errmsg": "waiting for replication timed out"}


def bulk_error(*, failures: list[dict[str, Any]] = [], unconfirmed: list[dict[str, Any]] = []) -> BulkWriteError:  # noqa: B006
    return BulkWriteError({"writeErrors": failures, "writeConcernErrors": unconfirmed})


async def test_an_address_cannot_weaken_reads_and_writes() -> None:
    client = open_client("mongodb://127.0.0.1:1/?readPreference=secondaryPreferred&w=1&journal=false&retryWrites=false")
    assert client.read_preference == ReadPreference.PRIMARY
    assert client.write_concern.document == {"w": "majority", "j": True}
    assert client.options.retry_writes
    await client.close()


def test_duplicates_alone_are_no_trouble() -> None:
    assert only_duplicates(bulk_error(failures=[DUPLICATE, DUPLICATE]))


@pytest.mark.parametrize(
    "error",
    [
        bulk_error(failures=[DUPLICATE, {"index": 1, "code": 121, "errmsg": "validation"}]),
        # The records may be rolled back: to move a cursor past them would lose their fires.
        bulk_error(failures=[DUPLICATE], unconfirmed=[UNCONFIRMED]),
        bulk_error(unconfirmed=[UNCONFIRMED]),
    ],
)
def test_all_else_is_trouble(error: BulkWriteError) -> None:
    assert not only_duplicates(error)


@pytest.mark.parametrize(
    "error", [AutoReconnect("gone"), OperationFailure("stepped down", 10107), bulk_error(unconfirmed=[UNCONFIRMED])]
)
def test_what_a_repetition_may_mend_is_unavailable(error: Exception) -> None:
    assert isinstance(translate_error(error), UnavailableError)


@pytest.mark.parametrize(
    "error", [ValueError(), DuplicateKeyError("taken"), OperationFailure("bad", 2), bulk_error(failures=[DUPLICATE])]
)
def test_what_is_our_fault_is_not(error: Exception) -> None:
    assert translate_error(error) is None


def test_credentials_stay_out_of_logs() -> None:
    assert redact_uri("mongodb://user:pw@a:1,b:2/?x=1") == "mongodb://***@a:1,b:2/?x=1"
