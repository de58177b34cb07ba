"""A database for each test and a factory for clusters on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from tests.support.cluster import Cluster

StartCluster = Callable[..., Awaitable[Cluster]]


@pytest.fixture
async def database(mongo_uri: str, mongo_database: str) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    """The database that the cluster uses, for looking at it."""
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
