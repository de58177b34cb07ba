"""Dials targets, and no address that the guard refuses.

Two gates. The resolver judges all addresses of a name together, and aiohttp dials exactly what it returned, also out
of its cache: there is no second look-up that could answer otherwise (DNS rebinding). The socket factory judges each
address once more at the moment of dialling, which also catches literal addresses, since those never see a resolver.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ssl import SSLContext
from typing import Any
from weakref import WeakValueDictionary

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from services.executor.adapters.http.exchange import current_exchange
from services.executor.domain.address_guard import AddressGuard

DNS_CACHE_ENTRIES = 1_000
_LOOKUP_THREADS = 32
_LOOKUPS_OF_AN_ORG = 8
"""Of those under way. One that nobody answers takes a thread for many seconds, also when its call has given up."""

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a name; raises OSError when it has none."""


class BlockedAddressError(OSError):
    """The guard refuses the address. An OSError, because that is what aiohttp carries through every path unchanged."""

    def __init__(self) -> None:
        # Says nothing of the address: what a name resolves to inside is not for the user to learn.
        super().__init__(errno.EACCES, "the target's address is not allowed")


class SystemLookup:
    """Looks names up through the system, in threads of its own: slow names delay no other work.

    They delay each other, within their org: no org has more than its part of the threads.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="dns")
        self._parts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """Of each org that looks something up right now."""

    async def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of a name, in the system's order of preference."""
        org_id = current_exchange.get().org_id
        part = self._parts.get(org_id)
        if part is None:
            part = self._parts[org_id] = asyncio.Semaphore(_LOOKUPS_OF_AN_ORG)
        async with part:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, _getaddrinfo, host, port)
        return list(dict.fromkeys(str(item[4][0]) for item in found))

    def close(self) -> None:
        """Give up the threads; look-ups under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Returns a name's addresses if the guard permits every one of them."""

    def __init__(self, guard: AddressGuard, lookup: Lookup) -> None:
        self._guard = guard
        self._lookup = lookup

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - every family is wanted, and judged
    ) -> list[ResolveResult]:
        """Return the addresses.

        Raises:
            BlockedAddressError: one of them is refused.
            OSError: there is none.
        """
        addresses = await self._lookup(host, port)
        if not addresses:
            raise OSError(errno.ENOENT, "the name has no address")
        if not self._guard.permits(host, addresses, port):
            raise BlockedAddressError
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Close nothing; the look-up belongs to whoever made it."""


class GuardedConnector(TCPConnector):
    """A pooled connector that dials permitted addresses only."""

    def __init__(
        self,
        guard: AddressGuard,
        lookup: Lookup,
        *,
        limit_per_host: int,
        keepalive_seconds: float,
        dns_cache_seconds: int,
        tls: SSLContext | None = None,
    ) -> None:
        self._guard = guard
        super().__init__(
            resolver=GuardedResolver(guard, lookup),
            socket_factory=self._open_socket,
            # The number of calls at a time is bounded before they come here.
            limit=0,
            limit_per_host=limit_per_host,
            # A timeout of nothing would keep it until it is asked for again, for aiohttp sets no timer for that.
            keepalive_timeout=keepalive_seconds or None,
            force_close=not keepalive_seconds,
            ttl_dns_cache=dns_cache_seconds,
            dns_cache_max_size=DNS_CACHE_ENTRIES,
            ssl=tls or True,
        )

    def _open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Return a socket for an address that is about to be dialled, if the guard permits it.

        Raises:
            BlockedAddressError: it does not.
        """
        family, kind, protocol, _, endpoint = info
        exchange = current_exchange.get()
        if not self._guard.permits(exchange.host, [endpoint[0]], endpoint[1]):
            raise BlockedAddressError
        exchange.dialled = True
        return socket.socket(family, kind, protocol)


def _getaddrinfo(host: str, port: int) -> list[tuple[Any, Any, Any, str, tuple[Any, ...]]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, "the host name cannot be encoded") from error
