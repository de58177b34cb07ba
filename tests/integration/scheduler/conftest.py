"""A served scheduler for the tests of its API, over a database that the session shares and each test leaves empty."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from services.scheduler.adapters.mongo.connection import open_client
from services.scheduler.adapters.mongo.migrations import migrate
from tests.support.served_scheduler import ServedScheduler, served_scheduler


@pytest.fixture(scope="session")
def api_database(mongo_uri: str, mongo_janitor: MongoClient[dict[str, Any]]) -> Iterator[str]:
    """The name of a database with all indexes; making them for each test would take longer than the tests."""
    name = f"test_api_{uuid.uuid4().hex}"

    async def prepare() -> None:
        client = open_client(mongo_uri)
        await migrate(client[name])
        await client.close()

    asyncio.run(prepare())
    yield name
    mongo_janitor.drop_database(name)


@pytest.fixture
def empty_database(api_database: str, mongo_janitor: MongoClient[dict[str, Any]]) -> Iterator[str]:
    """The same, emptied after the test."""
    yield api_database
    database = mongo_janitor[api_database]
    for collection in database.list_collection_names():
        database[collection].delete_many({})


@pytest.fixture
async def api(mongo_uri: str, empty_database: str) -> AsyncIterator[ServedScheduler]:
    async with served_scheduler(mongo_uri, empty_database) as served:
        yield served
