"""Real servers for the tests, and an environment that tests do not leak into.

The servers start when the first test asks for them and serve the whole session. PUNCTUAL_MONGODB_URI and
PUNCTUAL_REDIS_URL, given explicitly, name servers to use instead. Every other setting is removed from the environment
before tests are collected, so that a developer's shell cannot change a result.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from redis import Redis

from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.valkey import ValkeyServer

# Where programs are, not how they behave.
KEPT_SETTINGS = {"PUNCTUAL_MONGOD", "PUNCTUAL_VALKEY"}
GIVEN_SERVERS = pytest.StashKey[Mapping[str, str]]()
REDIS_DATABASES = 16


def pytest_configure(config: pytest.Config) -> None:
    """Take our settings out of the environment and remember the servers that were named there."""
    ours = [name for name in os.environ if name.startswith("PUNCTUAL_") and name not in KEPT_SETTINGS]
    config.stash[GIVEN_SERVERS] = {name: os.environ.pop(name) for name in ours}


# The session's fixtures are synchronous: each test has an event loop of its own, and servers outlive them all.


@pytest.fixture(scope="session")
def mongo_uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a single-member replica set."""
    given = request.config.stash[GIVEN_SERVERS].get("PUNCTUAL_MONGODB_URI")
    if given:
        yield given
        return
    mongo = MongoReplicaSet(tmp_path_factory.mktemp("mongod"))
    asyncio.run(mongo.start())
    try:
        # A streaming monitor keeps connecting, and PyMongo leaks the socket of a connect that `close` cancels: in a
        # test, which closes its client soon, that is now and then an unclosed socket.
        yield f"{mongo.uri}&serverMonitoringMode=poll"
    finally:
        asyncio.run(mongo.stop())


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one Valkey server; tests that share it keep apart by `redis_prefix` or `redis_database`."""
    given = request.config.stash[GIVEN_SERVERS].get("PUNCTUAL_REDIS_URL")
    if given:
        yield given
        return
    valkey = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    asyncio.run(valkey.start())
    try:
        yield valkey.url
    finally:
        asyncio.run(valkey.stop())


@pytest.fixture(scope="session")
def mongo_janitor(mongo_uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """A client that drops what tests leave behind."""
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        yield client


@pytest.fixture
def mongo_database(mongo_janitor: MongoClient[dict[str, Any]]) -> Iterator[str]:
    """The name of a database that only this test uses; dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    yield name
    mongo_janitor.drop_database(name)


@pytest.fixture
def redis_prefix(redis_url: str) -> Iterator[str]:
    """A key prefix that only this test uses, for tests whose keys have a prefix; its keys are deleted afterwards."""
    prefix = f"test-{uuid.uuid4().hex}:"
    yield prefix
    with Redis.from_url(redis_url) as client:
        for key in client.scan_iter(f"*{prefix}*"):
            client.delete(key)


@pytest.fixture(scope="session")
def redis_database_numbers() -> Iterator[int]:
    """Logical databases in turn; 0 stays free for those who use a prefix."""
    return itertools.cycle(range(1, REDIS_DATABASES))


@pytest.fixture
def redis_database(redis_url: str, redis_database_numbers: Iterator[int]) -> Iterator[str]:
    """The address of a logical database that only this test uses now, for tests of whole services; starts empty."""
    url = f"{redis_url.rpartition('/')[0]}/{next(redis_database_numbers)}"
    with Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def server_folder(tmp_path: Path) -> Path:
    """A folder for servers that a test starts itself."""
    return tmp_path / "servers"
