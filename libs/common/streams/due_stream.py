"""The stream of due executions: a short buffer between dispatcher and executors, sharded to spread over a Cluster.

An entry is a hint and nothing more. It may be lost (failover, FLUSHALL), doubled (a repeated XADD) or stale (somebody
else ran the execution); the database decides each begin, and the poll path finds what was lost. So acknowledging means
XACK and XDEL at once, the stream's length is the backlog plus what is in flight, and a reaper may drop a dead
consumer's entries.

Every method raises UnavailableError when Redis is away or refuses, within a bounded time even on a dead connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from punctual.internal.v1.stream_entry_pb2 import StreamEntry
from redis.asyncio import RedisCluster
from redis.exceptions import RedisError, ResponseError

from libs.common.errors import UnavailableError
from libs.common.logs import get_logger
from libs.common.streams.connection import RedisClient

GROUP = "executors"
MAX_BLOCK_MS = 1_000
_FIELD = b"e"
_COMMAND_SECONDS = 2.0
_BLOCK_SLACK_SECONDS = 1.0
_DEAD_LETTERS_KEPT = 1_000
_REAP_BATCH = 100
_CONSUMER_IDLE_MS = 600_000
_MOST_SECONDS = 253_402_300_000
"""From 1970 until about the end of the year 9999, the last that Python knows: no fire is due outside."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReceivedEntry:
    """An entry that was delivered to one consumer and waits for its acknowledgement."""

    stream_id: str
    shard: int
    entry: StreamEntry


@dataclass(frozen=True, slots=True)
class Reaped:
    """What a pass of the reaper removed: entries of dead consumers, and dead consumers without any."""

    entries: int
    consumers: int


class DueStream:
    """The stream over Redis. Partition p is in shard p modulo `shards`, a number that all its users must agree on."""

    def __init__(self, redis: RedisClient, *, key_prefix: str = "punctual", shards: int = 1) -> None:
        # Typed as Any: the two client classes share these commands, but no base class that declares them.
        self._redis: Any = redis
        self._prefix = key_prefix
        self._keys = [f"{key_prefix}:{{due-{shard}}}" for shard in range(shards)]

    @property
    def shards(self) -> int:
        """How many shards there are, numbered from 0."""
        return len(self._keys)

    def key(self, shard: int) -> str:
        """Return the shard's key; its hash tag puts different shards on different nodes of a Cluster."""
        return self._keys[shard]

    @property
    def dead_letter_key(self) -> str:
        """The key of the stream of unreadable entries."""
        return f"{self._prefix}:{{dead-letter}}"

    async def ensure_group(self) -> None:
        """Create the consumer group of every shard where it is missing, from the first entry on."""
        async with _bounded(_COMMAND_SECONDS):
            for shard in range(self.shards):
                await self._create_group(shard)

    async def add(self, entries: Sequence[tuple[int, StreamEntry]]) -> None:
        """Append (partition, entry) pairs in one round trip. After an error, any of them may have been appended."""
        if not entries:
            return
        async with _bounded(_COMMAND_SECONDS):
            pipeline = self._redis.pipeline(transaction=False)
            shards = self.shards
            for partition, entry in entries:
                pipeline.xadd(self._keys[partition % shards], {_FIELD: entry.SerializeToString()})
            await pipeline.execute()

    async def read(self, shard: int, consumer: str, count: int, block_ms: int) -> list[ReceivedEntry]:
        """Take up to `count` undelivered entries, waiting up to `block_ms` (at most MAX_BLOCK_MS; 0 or less: not at
        all).

        A missing group, as after FLUSHALL, is created again. Unreadable entries are put aside and do not come back.
        """
        block_ms = min(block_ms, MAX_BLOCK_MS)
        # A server that is gone without a FIN leaves a blocked read waiting; only our own deadline ends it.
        async with _bounded(max(block_ms, 0) / 1000 + _BLOCK_SLACK_SECONDS):
            try:
                answer = await self._redis.xreadgroup(
                    GROUP, consumer, {self.key(shard): ">"}, count=count, block=block_ms if block_ms > 0 else None
                )
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                log.warning("due_stream.group_missing", shard=shard)
                await self._create_group(shard)
                return []
        raw = answer[0][1] if answer else []
        return await self._decode(shard, raw)

    async def acknowledge(self, shard: int, stream_ids: Sequence[str]) -> None:
        """Remove entries for good. Repeating it is harmless."""
        if not stream_ids:
            return
        async with _bounded(_COMMAND_SECONDS):
            pipeline = self._redis.pipeline(transaction=False)
            # In this order: where only the first comes to pass, as in a failover in between, the reaper clears the
            # rest. An entry that was acknowledged and is still there would be nobody's, and stay for good.
            pipeline.xdel(self.key(shard), *stream_ids)
            pipeline.xack(self.key(shard), GROUP, *stream_ids)
            await pipeline.execute()

    async def backlog(self, shard: int) -> int:
        """Return how many entries of the shard no consumer has been given yet."""
        key = self.key(shard)
        async with _bounded(_COMMAND_SECONDS):
            group = await self._group(key)
            if group is not None and group.get("lag") is not None:
                return int(group["lag"])
            length = int(await self._redis.xlen(key))
        # Redis does not know the lag after some deletions; since acknowledging deletes, the rest is simple arithmetic.
        return length if group is None else max(length - int(group["pending"]), 0)

    async def depth(self, shard: int) -> int:
        """Return how many entries the shard holds, those under way included."""
        async with _bounded(_COMMAND_SECONDS):
            return int(await self._redis.xlen(self.key(shard)))

    async def count_keys(self) -> int:
        """Return how many keys Redis holds in all, ours and others."""
        async with _bounded(_COMMAND_SECONDS):
            return int(await self._redis.dbsize())

    async def eviction_policies(self) -> set[str]:
        """Return the maxmemory policies of all nodes: one, as a rule."""
        async with _bounded(_COMMAND_SECONDS):
            if isinstance(self._redis, RedisCluster):
                nodes = await self._redis.info("memory", target_nodes=RedisCluster.PRIMARIES)
                return {str(info["maxmemory_policy"]) for info in nodes.values()}
            return {str((await self._redis.info("memory"))["maxmemory_policy"])}

    async def reap(self, shard: int, consumer: str, min_idle_ms: int) -> Reaped:
        """Drop entries that a consumer has held for `min_idle_ms`, a bounded number per call, and consumers long gone.

        They are not run here: the poll path redelivers executions. A consumer is deleted only when it holds nothing;
        one that takes an entry in the very moment of its deletion loses a hint, which the poll path makes good as
        well.
        """
        key = self.key(shard)
        async with _bounded(_COMMAND_SECONDS):
            if await self._group(key) is None:
                return Reaped(0, 0)
            answer = await self._redis.xautoclaim(
                key, GROUP, consumer, min_idle_ms, start_id="0-0", count=_REAP_BATCH, justid=True
            )
        stale = [_text(stream_id) for stream_id in answer]
        await self.acknowledge(shard, stale)
        async with _bounded(_COMMAND_SECONDS):
            gone = [
                name
                for info in await self._redis.xinfo_consumers(key, GROUP)
                if (name := _text(info["name"])) != consumer
                and int(info["pending"]) == 0
                and int(info["idle"]) >= max(_CONSUMER_IDLE_MS, min_idle_ms)
            ]
            for name in gone:
                await self._redis.xgroup_delconsumer(key, GROUP, name)
        return Reaped(len(stale), len(gone))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _create_group(self, shard: int) -> None:
        try:
            await self._redis.xgroup_create(self.key(shard), GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _group(self, key: str) -> dict[str, Any] | None:
        """Return what Redis knows of our group; None when group or stream does not exist."""
        try:
            groups: list[dict[str, Any]] = await self._redis.xinfo_groups(key)
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return None
        return next((group for group in groups if _text(group["name"]) == GROUP), None)

    async def _decode(self, shard: int, raw: Sequence[tuple[bytes, dict[bytes, bytes] | None]]) -> list[ReceivedEntry]:
        received: list[ReceivedEntry] = []
        unreadable: dict[str, dict[bytes, bytes]] = {}
        for raw_id, fields in raw:
            stream_id = _text(raw_id)
            entry = _parse(fields)
            if entry is None:
                unreadable[stream_id] = fields or {}
            else:
                received.append(ReceivedEntry(stream_id, shard, entry))
        if unreadable:
            await self._put_aside(shard, unreadable)
        return received

    async def _put_aside(self, shard: int, unreadable: dict[str, dict[bytes, bytes]]) -> None:
        """Move unreadable entries to the dead letters; where that fails, the reaper drops them later."""
        log.error("due_stream.dead_lettered", shard=shard, count=len(unreadable), stream_ids=list(unreadable)[:10])
        try:
            async with _bounded(_COMMAND_SECONDS):
                pipeline = self._redis.pipeline(transaction=False)
                for stream_id, fields in unreadable.items():
                    pipeline.xadd(
                        self.dead_letter_key,
                        {b"shard": str(shard), b"stream_id": stream_id, _FIELD: fields.get(_FIELD, b"")},
                        maxlen=_DEAD_LETTERS_KEPT,
                        approximate=True,
                    )
                await pipeline.execute()
            await self.acknowledge(shard, list(unreadable))
        except UnavailableError as error:
            log.warning("due_stream.dead_letter_failed", shard=shard, error=str(error))


def _parse(fields: dict[bytes, bytes] | None) -> StreamEntry | None:
    """Return the entry; None when it is not one of ours. An entry that was trimmed while unread has no fields."""
    if not fields or _FIELD not in fields:
        return None
    entry = StreamEntry()
    try:
        entry.ParseFromString(fields[_FIELD])
    except DecodeError:
        return None
    return entry if entry.execution_id and 0 <= entry.due_time.seconds < _MOST_SECONDS else None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@asynccontextmanager
async def _bounded(seconds: float) -> AsyncIterator[None]:
    """Give the commands inside that long, and turn every way in which Redis can fail into UnavailableError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        kind = type(error).__name__
        raise UnavailableError("STREAM_UNAVAILABLE", f"Redis: {kind}: {error}", metadata={"kind": kind}) from error
