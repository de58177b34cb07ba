"""A Redis whose address moves to another server, as a managed one does it: old connections stay with the old server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from punctual.internal.v1.stream_entry_pb2 import StreamEntry
from redis.asyncio import Redis

from libs.common.errors import UnavailableError
from libs.common.streams.connection import open_redis
from libs.common.streams.due_stream import DueStream
from libs.common.streams.urls import parse_redis_url
from tools.devstack.valkey import ValkeyServer


class Address:
    """An address that leads new connections to a server of our choice."""

    def __init__(self, url: str) -> None:
        self.leads_to = url

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, there = await asyncio.open_connection(*parse_redis_url(self.leads_to).hosts[0])
        async with asyncio.TaskGroup() as both:
            both.create_task(self._relay(reader, there))
            both.create_task(self._relay(behind, writer))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()
        await writer.wait_closed()


async def test_a_server_that_became_a_replica_is_left(server_folder: Path) -> None:
    async with ValkeyServer(server_folder / "old") as old, ValkeyServer(server_folder / "new") as new:
        address = Address(old.url)
        async with await asyncio.start_server(address.connected, "127.0.0.1", 0) as server:
            stream = DueStream(open_redis(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
            entry = [(0, StreamEntry(execution_id="e1"))]
            await stream.add(entry)
            async with Redis.from_url(old.url) as client:
                await client.replicaof("127.0.0.1", "1")
            address.leads_to = new.url
            with pytest.raises(UnavailableError):
                await stream.add(entry)
            await stream.add(entry)
            assert await stream.depth(0) == 1
            await stream.close()
