"""The database gets its shape once, however often and by however many replicas it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from services.scheduler.adapters.mongo import migrations
from services.scheduler.adapters.mongo.connection import open_client
from services.scheduler.adapters.mongo.documents import DOCUMENTS
from services.scheduler.adapters.mongo.migrations import bind_documents, migrate
from services.scheduler.adapters.mongo.partition_store import MongoPartitionStore

Database = AsyncDatabase[dict[str, Any]]


@pytest.fixture
async def database(mongo_uri: str, mongo_database: str) -> AsyncIterator[Database]:
    client = open_client(mongo_uri)
    yield client[mongo_database]
    await client.close()


async def shape(database: Database) -> dict[str, dict[str, Any]]:
    return {name: await database[name].index_information() for name in await database.list_collection_names()}


async def test_a_second_migration_changes_nothing(database: Database) -> None:
    await migrate(database)
    first = await shape(database)
    await migrate(database)
    assert await shape(database) == first
    assert first["jobs"].keys() >= {"tick", "idempotency_key", "purge"}
    assert first["executions"].keys() >= {"job_fire", "org_fire", "org_state_fire", "wake", "live", "overlap_slot"}


async def test_replicas_may_migrate_at_once(database: Database) -> None:
    await asyncio.gather(*(migrate(database) for _ in range(5)))
    expected = {
        document.Settings.name: {"_id_"} | {index.document["name"] for index in document.Settings.indexes}
        for document in DOCUMENTS
        if hasattr(document.Settings, "indexes")
    }
    found = await shape(database)
    assert {name: set(found[name]) for name in expected} == expected


@pytest.mark.parametrize(
    ("collection", "index", "field"), [("jobs", "purge", "purge_time"), ("executions", "expire", "expire_time")]
)
async def test_what_is_over_expires_at_the_time_that_it_says(
    database: Database, collection: str, index: str, field: str
) -> None:
    await migrate(database)
    ttl = (await database[collection].index_information())[index]
    assert (ttl["key"], ttl["expireAfterSeconds"], ttl["sparse"]) == ([(field, 1)], 0, True)


async def test_uniqueness_is_the_databases(database: Database) -> None:
    await migrate(database)
    unique = {
        (name, index)
        for name, indexes in (await shape(database)).items()
        for index, options in indexes.items()
        if options.get("unique")
    }
    assert unique >= {("jobs", "idempotency_key"), ("executions", "overlap_slot"), ("executions", "queue_slot")}
    assert ("answers.chunks", "files_id_1_n_1") in unique


async def test_a_retired_index_goes_and_a_missing_one_is_no_trouble(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(database)
    await database["jobs"].create_index([("name", 1)], name="old")
    monkeypatch.setattr(migrations, "RETIRED_INDEXES", {"jobs": ("old", "older")})
    await migrate(database)
    await migrate(database)
    assert "old" not in await database["jobs"].index_information()


async def test_binding_touches_no_index(database: Database) -> None:
    await bind_documents(database)
    assert (await MongoPartitionStore().read()).version == 0
    assert await database.list_collection_names() == []
