"""Opens a Redis client, whichever way Redis is set up; those who use it see commands only.

Opening connects nothing. A command fails fast instead of being repeated inside the client: each caller has a loop that
knows how long it may wait, and what to do meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ReadOnlyError, RedisError

from libs.common.streams.urls import RedisAddress, parse_redis_url

RedisClient = Redis | RedisCluster

CALL_SECONDS = 2.0
"""How long the users of a client give a call, as a rule."""
CONNECT_TIMEOUT_SECONDS = 1.0
# Above the longest blocking read, so that the read's own deadline decides.
SOCKET_TIMEOUT_SECONDS = 5.0
_PART_OF_CALL = 0.75
"""In which a node of a Cluster has to answer; above the longest blocking read, too."""
_HEALTH_CHECK_SECONDS = 15


def open_redis(url: str, *, max_connections: int = 32, call_seconds: float = CALL_SECONDS) -> RedisClient:
    """Return a client for the URL; close it with `aclose`. Its users give a call so many seconds.

    Raises:
        ValueError: the URL is not understood.
    """
    address = parse_redis_url(url)
    if address.topology == "cluster":
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
            max_connections=max_connections,
            **{
                **_common(address),
                # Once more after a slot has moved.
                "retry": Retry(NoBackoff(), 1),
                # A client looks for the nodes anew when it sees one fail itself, not when its caller gives up before:
                # one that hangs would be asked for ever, whoever has its slots by now.
                "socket_timeout": call_seconds * _PART_OF_CALL,
                "socket_connect_timeout": min(call_seconds * _PART_OF_CALL, CONNECT_TIMEOUT_SECONDS),
            },
        )
    options = {**_common(address), "db": address.db, "max_connections": max_connections}
    if address.topology == "sentinel":
        sentinels = _Sentinels(address.hosts, sentinel_kwargs=_timeouts(), **options)  # type: ignore[no-untyped-call]
        return _packing_in_c(sentinels.master_for(address.service))
    host, port = address.hosts[0]
    return _packing_in_c(Redis(host=host, port=port, **options), _LeavingReplicas)


class _Sentinels(Sentinel):
    """Asks all sentinels at once for the primary and believes the first that knows one.

    redis-py asks one after the other. The first one on a machine that hangs outlasts the command that needs the
    connection, which is given up and asks it again: with one of three sentinels silent nobody would find Redis.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the primary's host and port.

        Raises:
            MasterNotFoundError: no sentinel knows one.
        """
        asking = [asyncio.ensure_future(self._ask(sentinel, service_name)) for sentinel in self.sentinels]
        try:
            for answer in asyncio.as_completed(asking):
                if (found := await answer) is not None:
                    return found
        finally:
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
            # They are seldom asked. What is under way for others stays.
            for sentinel in self.sentinels:
                await sentinel.connection_pool.disconnect(inuse_connections=False)
        raise MasterNotFoundError("no sentinel knows a primary")

    async def _ask(self, sentinel: Redis, service_name: str) -> tuple[str, int] | None:
        try:
            masters: Any = await sentinel.sentinel_masters()
        except (RedisError, OSError):
            return None
        state = masters.get(service_name)
        if state is None or not self.check_master_state(state, service_name):
            return None
        return state["ip"], state["port"]


class _PackingInC:
    """Packs commands by hiredis: redis-py's asynchronous connections read by it, and pack in Python nevertheless."""

    _serializer = HiredisRespSerializer()

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return the command as it is sent."""
        packed: list[bytes] = self._serializer.pack(*args)
        return packed


class _LeavingReplicas:
    """Ends a connection to a server that became a replica, so that the next command meets whoever took its address.

    A managed Redis, or a service in front of several, moves its address and leaves old connections where they are. One
    that is found by sentinels does the same by itself.
    """

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Return the next response, as redis-py's connection does."""
        connection: Any = super()
        try:
            return await connection.read_response(*args, **options)
        except ReadOnlyError:
            await connection.disconnect()
            raise


def _packing_in_c(client: Redis, *more: type) -> Redis:
    """Return the client, which has connected nothing yet, with connections of this kind, and of more."""
    pool = client.connection_pool
    pool.connection_class = type("PackingConnection", (_PackingInC, *more, pool.connection_class), {})
    return client


def _common(address: RedisAddress) -> dict[str, Any]:
    return {
        **_timeouts(),
        "username": address.username,
        "password": address.password,
        "ssl": address.tls,
        "health_check_interval": _HEALTH_CHECK_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        # The shapes of answers differ between the protocol's versions; the older one exists on every server.
        "protocol": 2,
    }


def _timeouts() -> dict[str, Any]:
    return {
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_keepalive": True,
    }
