"""Documents that this version cannot read: all others fire, and what they stand for is not taken for gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from punctual.v1 import schedule_pb2
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from tests.support.served_scheduler import ServedScheduler, a_timestamp


@pytest.fixture
def database(api: ServedScheduler, mongo_uri: str, empty_database: str) -> AsyncDatabase[dict[str, Any]]:
    """The served scheduler's database, over a client that the test closes with its loop."""
    return AsyncMongoClient[dict[str, Any]](mongo_uri)[empty_database]


async def due_now(api: ServedScheduler) -> str:
    """Create a job that fires now, and return its id."""
    soon = a_timestamp(datetime.now(UTC) + timedelta(milliseconds=200))
    job = await api.create(schedule=schedule_pb2.Schedule(one_time=schedule_pb2.OneTimeRule(instant=soon)))
    return job.job_id


def unreadable(api: ServedScheduler, collection: str) -> float:
    """Return how often a document was counted as unreadable."""
    labels = {"collection": collection}
    return api.signals.metrics.registry.get_sample_value("punctual_documents_unreadable_total", labels) or 0


async def test_a_job_that_cannot_be_read_holds_up_no_other(
    api: ServedScheduler, database: AsyncDatabase[dict[str, Any]]
) -> None:
    broken, sound = await due_now(api), await due_now(api)
    await database.jobs.update_one({"_id": broken}, {"$set": {"definition.schedule.rule.kind": "lunar"}})
    assert [execution_id.partition("-")[0] for execution_id in await api.tick()] == [sound]
    assert unreadable(api, "jobs") == 1
    await database.jobs.update_one({"_id": broken}, {"$set": {"definition.schedule.rule.kind": "one_time_at"}})
    assert [execution_id.partition("-")[0] for execution_id in await api.tick()] == [broken]
    await database.client.close()


async def test_executions_of_a_job_that_cannot_be_read_wait(
    api: ServedScheduler, database: AsyncDatabase[dict[str, Any]]
) -> None:
    job_id = await due_now(api)
    (execution_id,) = await api.tick()
    # As a newer version writes it: whoever changes a definition makes a new revision.
    newer = {"$set": {"definition.overlap": "SOMETIMES"}, "$inc": {"revision": 1}}
    await database.jobs.update_one({"_id": job_id}, newer)
    refused = await api.begin(execution_id)
    assert [(refusal.execution_id, refusal.reason) for refusal in refused.refusals] == [(execution_id, "NOT_READY")]
    stored = await database.executions.find_one({"_id": execution_id})
    assert stored is not None
    assert stored["state"] == "READY"
    await database.jobs.update_one({"_id": job_id}, {"$set": {"definition.overlap": "SKIP"}})
    assert len((await api.begin(execution_id)).grants) == 1
    await database.client.close()


async def test_an_execution_that_cannot_be_read_holds_up_no_other(
    api: ServedScheduler, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await due_now(api)
    await due_now(api)
    broken, sound = await api.tick()
    # As a newer version that has begun it leaves it: this replica, which made it, sees by the token that it changed.
    change = {"$set": {"cause": "MOON"}, "$inc": {"fencing_token": 1}}
    await database.executions.update_one({"_id": broken}, change)
    batch = await api.begin(broken, sound)
    assert [grant.execution_id for grant in batch.grants] == [sound]
    assert unreadable(api, "executions") == 1
    assert [(refusal.execution_id, refusal.reason) for refusal in batch.refusals] == [(broken, "NOT_FOUND")]
    stored = await database.executions.find_one({"_id": broken})
    assert stored is not None
    assert stored["state"] == "READY"
    await database.client.close()
