"""Clusters for the tests: one that the tests of a module share, and a factory for those who need one of their own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.database import AsyncDatabase

from tests.support.cluster import Cluster

StartCluster = Callable[..., Awaitable[Cluster]]
Database = AsyncDatabase[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class System:
    """A running cluster, whole and without any jobs, and its stores for looking at them."""

    cluster: Cluster
    database: Database
    redis_url: str


@pytest.fixture
async def database(mongo_uri: str, mongo_database: str) -> AsyncIterator[Database]:
    """The database that the cluster of `start_cluster` uses, for looking at it."""
    async with AsyncMongoClient[dict[str, Any]](mongo_uri) as client:
        yield client[mongo_database]


@pytest.fixture
async def start_cluster(
    mongo_uri: str, mongo_database: str, redis_database: str, tmp_path: Path
) -> AsyncIterator[StartCluster]:
    """A function that starts a cluster, which is stopped after the test."""
    clusters: list[Cluster] = []

    async def start(**arguments: Any) -> Cluster:
        cluster = Cluster(tmp_path, mongo_uri, mongo_database, redis_database, **arguments)
        clusters.append(cluster)
        await cluster.start()
        return cluster

    yield start
    for cluster in clusters:
        await cluster.stop()


@pytest.fixture(scope="module")
def module_cluster(
    *,
    request: pytest.FixtureRequest,
    mongo_uri: str,
    mongo_janitor: MongoClient[dict[str, Any]],
    redis_url: str,
    redis_database_numbers: Iterator[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Cluster, str, str]]:
    """A cluster for all tests of a module, as its CLUSTER describes it; with the names of its databases.

    Processes outlive the event loop of a test, so starting them costs once, not once a test.
    """
    name = f"test_{uuid.uuid4().hex}"
    redis = f"{redis_url.rpartition('/')[0]}/{next(redis_database_numbers)}"
    folder = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(folder, mongo_uri, name, redis, **getattr(request.module, "CLUSTER", {}))
    try:
        asyncio.run(cluster.start())
        yield cluster, name, redis
    finally:
        asyncio.run(cluster.stop())
        mongo_janitor.drop_database(name)


@pytest.fixture
async def system(module_cluster: tuple[Cluster, str, str], mongo_uri: str) -> AsyncIterator[System]:
    """The module's cluster, mended and emptied."""
    cluster, name, redis = module_cluster
    await cluster.mend()
    async with AsyncMongoClient[dict[str, Any]](mongo_uri) as client:
        database = client[name]
        await database.jobs.delete_many({})
        await database.executions.delete_many({})
        cluster.forget_arrivals()
        yield System(cluster, database, redis)
