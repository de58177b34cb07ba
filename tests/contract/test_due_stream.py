"""What users of the due stream rely on, held against the fake and against a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from punctual.internal.v1.stream_entry_pb2 import StreamEntry
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from libs.common.clock import SystemClock
from libs.common.errors import UnavailableError
from libs.common.streams.connection import RedisClient, open_redis
from libs.common.streams.due_stream import GROUP, DueStream, Reaped
from libs.common.testing.fake_due_stream import FakeDueStream

SHARDS = 2


@dataclass
class Subject:
    """A stream under test, and how to make it forget everything."""

    stream: DueStream | FakeDueStream
    forget: Callable[[], object]


@pytest.fixture(params=["fake", "redis"])
async def subject(request: pytest.FixtureRequest, redis_url: str, redis_prefix: str) -> AsyncIterator[Subject]:
    if request.param == "fake":
        fake = FakeDueStream(SystemClock(), shards=SHARDS)

        async def flush() -> None:
            fake.flush()

        yield Subject(fake, flush)
        return
    client = open_redis(redis_url)
    stream = DueStream(client, key_prefix=redis_prefix, shards=SHARDS)

    async def delete() -> None:
        await client.delete(*(stream.key(shard) for shard in range(SHARDS)))

    yield Subject(stream, delete)
    await stream.close()


@pytest.fixture
async def stream(subject: Subject) -> DueStream | FakeDueStream:
    await subject.stream.ensure_group()
    return subject.stream


def entries(count: int, partition: int = 0) -> list[tuple[int, StreamEntry]]:
    return [(partition, StreamEntry(execution_id=f"e{n}", job_id="j", trace_parent="t")) for n in range(count)]


async def test_entries_come_whole_and_in_order(stream: DueStream) -> None:
    await stream.add(entries(3))
    received = await stream.read(0, "c", 10, 0)
    assert [item.entry for item in received] == [entry for _, entry in entries(3)]
    assert {item.shard for item in received} == {0}


async def test_partitions_spread_over_shards(stream: DueStream) -> None:
    await stream.add([(partition, entry) for partition in (0, 1, 2, 3, 255) for _, entry in entries(1)])
    assert [await stream.backlog(shard) for shard in range(SHARDS)] == [2, 3]


async def test_each_entry_goes_to_one_consumer(stream: DueStream) -> None:
    await stream.add(entries(5))
    first = await stream.read(0, "a", 2, 0)
    second = await stream.read(0, "b", 10, 0)
    assert [item.entry.execution_id for item in first + second] == ["e0", "e1", "e2", "e3", "e4"]
    assert len(first) == 2


async def test_read_waits_for_an_entry(stream: DueStream) -> None:
    reading = asyncio.create_task(stream.read(0, "c", 10, 2_000))
    await asyncio.sleep(0.05)
    await stream.add(entries(1))
    async with asyncio.timeout(1):
        assert len(await reading) == 1


async def test_read_of_nothing_returns_nothing_after_its_wait(stream: DueStream) -> None:
    assert await stream.read(0, "c", 10, 0) == []
    async with asyncio.timeout(1):
        assert await stream.read(0, "c", 10, 20) == []


async def test_backlog_counts_what_nobody_was_given(stream: DueStream) -> None:
    await stream.add(entries(5))
    received = await stream.read(0, "c", 2, 0)
    assert await stream.backlog(0) == 3
    await stream.acknowledge(0, [item.stream_id for item in received])
    assert await stream.backlog(0) == 3


async def test_acknowledging_twice_is_harmless(stream: DueStream) -> None:
    await stream.add(entries(1))
    ids = [item.stream_id for item in await stream.read(0, "c", 1, 0)]
    await stream.acknowledge(0, ids)
    await stream.acknowledge(0, ids)
    await stream.acknowledge(0, [])
    assert await stream.reap(0, "c", 0) == Reaped(0, 0)


async def test_reap_drops_what_a_dead_consumer_held(stream: DueStream) -> None:
    await stream.add(entries(3))
    await stream.read(0, "dead", 2, 0)
    assert await stream.reap(0, "c", 60_000) == Reaped(0, 0)
    assert (await stream.reap(0, "c", 0)).entries == 2
    assert [item.entry.execution_id for item in await stream.read(0, "c", 10, 0)] == ["e2"]


async def test_forgotten_stream_works_again(subject: Subject, stream: DueStream) -> None:
    await stream.add(entries(3))
    await subject.forget()
    assert await stream.backlog(0) == 0
    assert await stream.reap(0, "c", 0) == Reaped(0, 0)
    await stream.add(entries(1))
    assert await stream.backlog(0) == 1
    # The first read may be the one that finds the group missing.
    received = await stream.read(0, "c", 10, 0) or await stream.read(0, "c", 10, 0)
    assert [item.entry.execution_id for item in received] == ["e0"]


async def test_stream_forgotten_during_a_read_works_again(subject: Subject, stream: DueStream) -> None:
    reading = asyncio.create_task(stream.read(0, "c", 10, 500))
    await asyncio.sleep(0.05)
    await subject.forget()
    assert await reading == []
    await stream.add(entries(1))
    assert await stream.read(0, "c", 10, 0) or await stream.read(0, "c", 10, 0)


# What only a real server can show.


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[RedisClient]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


async def test_unreadable_entries_are_put_aside(client: RedisClient, redis_prefix: str) -> None:
    stream = DueStream(client, key_prefix=redis_prefix)
    await stream.ensure_group()
    await client.xadd(stream.key(0), {"e": b"\xff\xff"})
    await client.xadd(stream.key(0), {"other": "x"})
    timeless = StreamEntry(execution_id="e", due_time=Timestamp(seconds=10**14)).SerializeToString()
    await client.xadd(stream.key(0), {"e": timeless})
    await stream.add(entries(1))
    assert [item.entry.execution_id for item in await stream.read(0, "c", 10, 0)] == ["e0"]
    letters = [fields for _, fields in await client.xrange(stream.dead_letter_key)]
    assert [fields[b"e"] for fields in letters] == [b"\xff\xff", b"", timeless]
    assert await client.xlen(stream.key(0)) == 1


async def test_an_acknowledgement_that_came_to_pass_in_part_leaves_nothing_for_good(
    client: RedisClient, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a replica takes over that was told of the first command only."""
    stream = DueStream(client, key_prefix=redis_prefix)
    await stream.ensure_group()
    await stream.add(entries(3))
    ids = [item.stream_id for item in await stream.read(0, "c", 3, 0)]
    whole = Pipeline.execute

    async def first_only(pipeline: Pipeline, raise_on_error: bool = True) -> object:
        del pipeline.command_stack[1:]
        await whole(pipeline, raise_on_error)
        raise RedisConnectionError("the primary is gone")

    with monkeypatch.context() as broken:
        broken.setattr(Pipeline, "execute", first_only)
        with pytest.raises(UnavailableError):
            await stream.acknowledge(0, ids)
    await stream.reap(0, "reaper", 0)
    assert (await stream.depth(0), await stream.backlog(0)) == (0, 0)
    assert (await client.xpending(stream.key(0), GROUP))["pending"] == 0


async def test_consumers_long_gone_are_deleted_unless_they_hold_something(
    client: RedisClient, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.streams.due_stream._CONSUMER_IDLE_MS", 20)
    stream = DueStream(client, key_prefix=redis_prefix)
    await stream.ensure_group()
    await stream.add(entries(1))
    await stream.read(0, "holds", 1, 0)
    await stream.read(0, "idle", 1, 0)
    await asyncio.sleep(0.05)
    await stream.read(0, "alive", 1, 0)
    await client.xautoclaim(stream.key(0), GROUP, "holds", 0)  # as if it had just read it
    assert await stream.reap(0, "me", 30) == Reaped(0, 1)
    names = {info["name"] for info in await client.xinfo_consumers(stream.key(0), GROUP)}
    assert names == {b"holds", b"alive", b"me"}


async def test_away_server_is_unavailable_in_bounded_time() -> None:
    # A listener that never answers: what a dead connection looks like.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (silent.getsockname()[1], 1):
            stream = DueStream(open_redis(f"redis://127.0.0.1:{port}"))
            async with asyncio.timeout(5):
                with pytest.raises(UnavailableError) as failure:
                    await stream.read(0, "c", 1, 100)
            assert failure.value.reason == "STREAM_UNAVAILABLE"
            await stream.close()
