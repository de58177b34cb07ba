"""The databases that a suite runs on: none for the double in memory, and one of MongoDB's for the real adapter.

All tests of a session share one migrated database and leave it empty: to make its indexes anew for each test would take
longer than the tests.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from services.scheduler.adapters.mongo.connection import open_client
from services.scheduler.adapters.mongo.migrations import bind_documents, migrate


@pytest.fixture(scope="session")
def migrated_database(mongo_uri: str, mongo_janitor: MongoClient[dict[str, Any]]) -> Iterator[str]:
    """The name of a database with all indexes."""
    name = f"test_contract_{uuid.uuid4().hex}"

    async def prepare() -> None:
        client = open_client(mongo_uri)
        await migrate(client[name])
        await client.close()

    asyncio.run(prepare())
    yield name
    mongo_janitor.drop_database(name)


@pytest.fixture(params=["memory", "mongo"])
def mongo_place(request: pytest.FixtureRequest) -> Iterator[tuple[str, str] | None]:
    """The address of the server and the name of an empty database; only the real adapter starts a server."""
    if request.param == "memory":
        yield None
        return
    uri, name = request.getfixturevalue("mongo_uri"), request.getfixturevalue("migrated_database")
    yield uri, name
    database = request.getfixturevalue("mongo_janitor")[name]
    for collection in database.list_collection_names():
        database[collection].delete_many({})


@pytest.fixture
async def in_mongo(mongo_place: tuple[str, str] | None) -> AsyncIterator[bool]:
    """Whether the test is to use the adapter for MongoDB, whose documents are bound then."""
    if mongo_place is None:
        yield False
        return
    uri, name = mongo_place
    client = open_client(uri)
    await bind_documents(client[name])
    yield True
    await client.close()
