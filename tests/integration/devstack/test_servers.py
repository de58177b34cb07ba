"""The servers that tests and `make run` stand on, and the faults that tests do to them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.process import ChildFailedError, ChildProcess
from tools.devstack.valkey import ValkeyServer
from tools.devstack.valkey_cluster import ValkeyCluster
from tools.devstack.valkey_sentinel import ValkeySentinelSet


async def read_mark(uri: str) -> Any:
    async with AsyncMongoClient[dict[str, Any]](uri, serverMonitoringMode="poll") as client:
        document = await client.test.marks.find_one({"_id": "mark"})
        return document and document["value"]


async def write_mark(uri: str, value: int) -> None:
    async with AsyncMongoClient[dict[str, Any]](uri, w="majority", serverMonitoringMode="poll") as client:
        await client.test.marks.update_one({"_id": "mark"}, {"$set": {"value": value}}, upsert=True)


async def test_a_mongod_restarts_on_its_port_with_its_data(server_folder: Path) -> None:
    async with MongoReplicaSet(server_folder) as first:
        await write_mark(first.uri, 1)
    async with MongoReplicaSet(server_folder) as second:
        assert second.uri == first.uri
        assert await read_mark(second.uri) == 1


async def test_a_mongod_whose_port_was_taken_comes_back_on_another_one(server_folder: Path) -> None:
    async with MongoReplicaSet(server_folder) as first:
        await write_mark(first.uri, 1)
    port = int(first.uri.partition("/?")[0].rpartition(":")[2])
    squatter = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
    async with squatter, MongoReplicaSet(server_folder) as second:
        assert second.uri != first.uri
        assert await read_mark(second.uri) == 1


async def test_a_killed_mongod_keeps_what_it_acknowledged(server_folder: Path) -> None:
    async with MongoReplicaSet(server_folder) as mongo:
        await write_mark(mongo.uri, 1)
        mongo.kill()
        assert not mongo.processes[0].running
        await mongo.restart()
        assert await read_mark(mongo.uri) == 1


async def test_a_member_that_is_killed_while_primary_is_replaced(server_folder: Path) -> None:
    async with MongoReplicaSet(server_folder, members=3) as mongo:
        await write_mark(mongo.uri, 1)
        old = await mongo.primary_index()
        mongo.kill(old)
        assert await mongo.primary_index() != old
        await write_mark(mongo.uri, 2)
        await mongo.restart(old)
        assert await read_mark(mongo.uri) == 2


async def test_a_primary_that_steps_down_hands_over(server_folder: Path) -> None:
    async with MongoReplicaSet(server_folder, members=3) as mongo:
        old = await mongo.primary_index()
        await mongo.step_down()
        assert await mongo.primary_index() != old


async def test_a_killed_valkey_keeps_its_stream(server_folder: Path) -> None:
    async with ValkeyServer(server_folder) as valkey:
        async with Redis.from_url(valkey.url) as client:
            await client.xadd("stream", {"entry": "1"})
        valkey.kill()
        await valkey.restart()
        async with Redis.from_url(valkey.url) as client:
            assert await client.xlen("stream") == 1


async def test_a_frozen_valkey_answers_again_when_it_goes_on(server_folder: Path) -> None:
    async with ValkeyServer(server_folder) as valkey, Redis.from_url(valkey.url) as client:
        valkey.suspend()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.ping(), 0.3)
        valkey.resume()
        assert await client.ping()


async def test_sentinels_promote_a_replica_of_a_killed_primary(server_folder: Path) -> None:
    async with ValkeySentinelSet(server_folder) as valkeys:
        old = await valkeys.primary_index()
        valkeys.kill(old)
        new = await valkeys.wait_promoted(previous=old)
        assert await valkeys.servers[new].command("SET", "key", "value")


async def test_a_cluster_spreads_keys_over_its_nodes(server_folder: Path) -> None:
    async with ValkeyCluster(server_folder) as cluster, RedisCluster.from_url(cluster.url) as client:
        for number in range(30):
            await client.set(f"key-{number}", number)
        sizes = [await server.command("DBSIZE") for server in cluster.servers]
        assert sum(sizes) == 30
        assert all(sizes)


def test_a_data_folder_that_cannot_be_made_is_told_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    command = [sys.executable, "-m", "tools.devstack", "--data", str(file / "data")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.splitlines() == [f"devstack     | [Errno 20] Not a directory: '{file / 'data'}'"]


async def test_a_child_that_ends_before_it_is_ready_says_why() -> None:
    child = ChildProcess("liar", [sys.executable, "-c", "print('no luck')"], output=lambda _line: None)
    child.start()

    async def never() -> bool:
        return False

    with pytest.raises(ChildFailedError, match="no luck"):
        await child.wait_ready(never, seconds=20)


async def test_a_child_that_ignores_the_request_is_killed() -> None:
    lines: list[str] = []
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    child = ChildProcess("stubborn", [sys.executable, "-c", stubborn], output=lines.append)
    child.start()

    async def up() -> bool:
        return lines == ["up"]

    await child.wait_ready(up, seconds=20)
    await child.stop(seconds=0.2)
    assert await child.wait() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    # The child holds our pipe open: the pipe ends when the child is gone, however its parent went.
    parent = """
import sys, time
from pathlib import Path
from tools.devstack.process import ChildProcess
child = ChildProcess("child", [sys.executable, "-c", "import time; time.sleep(60)"], output=Path("/dev/stdout"))
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", parent, stdout=subprocess.PIPE)
    assert process.stdout is not None
    child_pid = int(await process.stdout.readline())
    os.kill(child_pid, 0)
    process.kill()
    await asyncio.wait_for(process.stdout.read(), 5)
    await process.wait()
