"""Which addresses an attempt may dial: public ones, and what the operator's allow-list names.

Strings are not judged here, only addresses as they came out of resolution: `2130706433`, `0x7f.1` and circled digits
all end as 127.0.0.1. An address that carries an IPv4 one inside (mapped, compatible, NAT64, 6to4, Teredo) is judged
by what is inside as well, since a gateway on the way may unwrap it. Python's `is_global` alone is not enough: it is
true for multicast, for NAT64 forms of the metadata address, for fec0::1 and for Azure's 168.63.129.16.

A host with several addresses is refused when one of them is: otherwise a resolver that mixes answers gets its second
one dialled as soon as the first does not answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_BLOCKED_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10",  # shared address space of carriers and clouds
        "192.0.0.0/24",  # protocol assignments; is_global holds for two addresses in it
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # Azure's host agent, a public address with an inside meaning
        "fec0::/10",  # site-local, withdrawn and still routed here and there
        "64:ff9b:1::/48",  # local NAT64
        "2001::/23",  # protocol assignments, Teredo among them
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_LOW_32_BITS = 0xFFFF_FFFF

# What listens here speaks no HTTP, and a body that looks like its commands could be obeyed: mail, shells, databases.
_BLOCKED_PORTS = frozenset(
    {1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111}
    | {
        113,
        115,
        117,
        119,
        123,
        135,
        137,
        139,
        143,
        161,
        179,
        389,
        427,
        465,
        512,
        513,
        514,
        515,
        526,
        530,
        531,
        532,
        540,
    }
    | {
        548,
        554,
        556,
        563,
        587,
        601,
        636,
        989,
        990,
        993,
        995,
        1433,
        1521,
        1719,
        1720,
        1723,
        2049,
        2375,
        2379,
        2380,
        3306,
    }
    | {
        3389,
        3659,
        4045,
        5060,
        5061,
        5432,
        5900,
        6000,
        6379,
        6380,
        6566,
        6665,
        6666,
        6667,
        6668,
        6669,
        6697,
        9042,
        10080,
    }
    | {10250, 11211, 26379, 27017, 27018, 27019}
)


@dataclass(frozen=True, slots=True)
class AllowedTarget:
    """One entry of the operator's allow-list: a network or a host name, with a port or for every port."""

    network: Network | None
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> AllowedTarget:
        """Read `10.1.0.0/16`, `10.1.2.3:8080`, `[fd00::1]:443`, `fd00::/8`, `llm.internal` or `llm.internal:8443`.

        Raises:
            ValueError: the entry is none of these.
        """
        host, port = _split_port(text.strip())
        try:
            return cls(ipaddress.ip_network(host), "", port)
        except ValueError:
            pass
        if "/" in host or not host or not all(c.isalnum() or c in "-._" for c in host):
            raise ValueError(f"neither a network nor a host name: {text!r}")
        return cls(None, host.lower().rstrip("."), port)

    def names(self, host: str, address: Address, port: int) -> bool:
        """Return whether this entry allows the address, reached through that host name, at that port."""
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        return self.host == host.lower().rstrip(".")


class AddressGuard:
    """The rule, with the operator's allow-list in it. Entries allow; nothing that is listed can forbid."""

    def __init__(self, allowed: Iterable[AllowedTarget] = ()) -> None:
        self._allowed = tuple(allowed)

    def permits(self, host: str, addresses: Iterable[str], port: int) -> bool:
        """Return whether `host` may be dialled at any of its addresses; no address at all is a no."""
        parsed = [_parse_address(text) for text in addresses]
        return bool(parsed) and all(item is not None and self._permits_one(host, item, port) for item in parsed)

    def _permits_one(self, host: str, address: Address, port: int) -> bool:
        if any(entry.names(host, address, port) for entry in self._allowed):
            return True
        return port not in _BLOCKED_PORTS and is_public(address)


def is_public(address: Address) -> bool:
    """Return whether the address, and every one wrapped in it, belongs to the public internet."""
    return all(_is_plainly_public(inner) for inner in (address, *_wrapped(address)))


def _is_plainly_public(address: Address) -> bool:
    if _is_wrapping(address):
        # What counts is inside; the wrapping itself is reserved space by nature.
        return not any(address in network for network in _BLOCKED_NETWORKS if network.version == address.version)
    if address.is_multicast or address.is_reserved or address.is_unspecified or not address.is_global:
        return False
    return not any(address in network for network in _BLOCKED_NETWORKS if network.version == address.version)


def _is_wrapping(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped is not None or address in _NAT64)


def _wrapped(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 addresses that an IPv6 one carries, whatever its kind of wrapping."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in (_NAT64, _NAT64_LOCAL, _COMPATIBLE)):
        yield ipaddress.IPv4Address(int(address) & _LOW_32_BITS)


def _parse_address(text: str) -> Address | None:
    """Return the address; None for what is not one, which is then refused."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _split_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"a bracket is not closed: {text!r}")
        return host, _port(rest[1:]) if rest else None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, _port(port)
    return text, None


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ValueError(f"not a port: {text!r}")
    return int(text)
