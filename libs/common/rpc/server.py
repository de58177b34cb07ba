"""A gRPC server as every Punctual service runs it: bounded messages and calls, keepalive, health, reflection.

Each address is bound exclusively: two processes on one port, which gRPC allows by default, would share the calls at
random. Stopping flips readiness first, then refuses new calls, then waits for those in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc
from grpc.aio import ServerInterceptor
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from libs.common.rpc.health import HEALTH_SERVICE, HealthReporter
from libs.common.rpc.interceptor_chain import InterceptorChain

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_METADATA_BYTES = 16 * 1024
"""All headers of one call; a token with many claims takes a few thousand."""

Servicer = TypeVar("Servicer")


class RpcServer:
    """One server on one or more addresses (`host:port`, port 0 takes a free one). Made inside a running event loop.

    `interceptors`, outermost first, judge by a method's name and are asked once for each (see `interceptor_chain`).
    `reflection_services` are the full names of the services to show by reflection, beside health; None serves none.
    """

    def __init__(
        self,
        *addresses: str,
        health: HealthReporter | None = None,
        interceptors: Sequence[ServerInterceptor] = (),
        credentials: grpc.ServerCredentials | None = None,
        reflection_services: Sequence[str] | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_concurrent_rpcs: int | None = None,
        keepalive_seconds: float = 30.0,
        max_connection_age_seconds: float = 60.0,
    ) -> None:
        self._addresses = addresses
        self._health = health
        self._credentials = credentials
        self._ports: tuple[int, ...] = ()
        self._server = grpc.aio.server(
            interceptors=(InterceptorChain(interceptors),),
            maximum_concurrent_rpcs=max_concurrent_rpcs,
            options=_options(max_message_bytes, keepalive_seconds, max_connection_age_seconds),
        )
        if health is not None:
            health.register(self._server)
        if reflection_services is not None:
            names = (*reflection_services, reflection.SERVICE_NAME, *((HEALTH_SERVICE,) if health else ()))
            reflection.enable_server_reflection(names, self._server)

    def add(self, register: Callable[[Servicer, grpc.aio.Server], object], servicer: Servicer) -> None:
        """Serve a servicer through its generated `add_..._to_server` function; before `start`."""
        register(servicer, self._server)

    async def start(self) -> None:
        """Bind the addresses and serve.

        Raises:
            RuntimeError: an address cannot be bound.
        """
        self._ports = tuple(self._bind(address) for address in self._addresses)
        await self._server.start()
        if self._health is not None:
            await self._health.start()

    @property
    def port(self) -> int:
        """The port of the first address, known after `start`."""
        return self._ports[0]

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports in the order of the addresses, known after `start`."""
        return self._ports

    async def stop(self, grace: float) -> None:
        """Refuse new calls at once, give those in progress `grace` seconds, then cancel them."""
        if self._health is not None:
            await self._health.drain()
        await self._server.stop(grace)
        if self._health is not None:
            await self._health.stop()

    def _bind(self, address: str) -> int:
        if self._credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, self._credentials)


def _options(
    max_message_bytes: int, keepalive_seconds: float, max_connection_age_seconds: float
) -> list[tuple[str, int]]:
    keepalive_ms = int(keepalive_seconds * 1000)
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # One hard limit: between the soft and the absolute one gRPC refuses at random.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Our own clients ping every 10 s; a server that takes that for abuse would cut idle channels.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        # A client asks for a name's addresses again only when a connection ends: without this a replica that was added
        # would get no calls. Calls in progress go on to their end, new ones use a new connection; gRPC adds jitter.
        ("grpc.max_connection_age_ms", int(max_connection_age_seconds * 1000)),
    ]
