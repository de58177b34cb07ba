"""Which addresses may be dialled: the block list of semantics.md as a table, mixed answers, and the allow-list."""

from __future__ import annotations

import pytest

from services.executor.domain.address_guard import AddressGuard, AllowedTarget

BLOCKED = [
    # loopback, unspecified, private, link-local
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255",
    "192.168.0.1", "192.168.255.255", "169.254.0.1", "169.254.169.254", "169.254.170.2", "::1", "::", "fc00::1",
    "fd00:ec2::254", "fdff::1", "fe80::1", "fe80::1%eth0", "febf::1",
    # shared, protocol, documentation and benchmark space
    "100.64.0.1", "100.100.100.200", "100.127.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.10", "192.0.0.170",
    "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255", "192.88.99.1", "2001:db8::1",
    "100::1", "2001:10::1", "2001:20::1",
    # multicast, reserved, broadcast, site-local
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "ff02::1", "ff0e::1", "fec0::1", "feff::1",
    # public by the book, inside by meaning
    "168.63.129.16",
    # an inside address in a wrapping
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1", "::127.0.0.1", "::10.0.0.1",
    "::8.8.8.8", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:a00:1::1", "2002:c0a8:1::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::1",
    # not an address
    "", "localhost", "1.2.3", "0x7f.1", "2130706433", "1.2.3.4.5", "example.com",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1",
    "168.63.129.15", "192.0.1.1", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001::1",
    "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",
]  # fmt: skip


@pytest.mark.parametrize("address", BLOCKED)
def test_inside_addresses_are_refused(address: str) -> None:
    assert not AddressGuard().permits("target.example", [address], 443)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_permitted(address: str) -> None:
    assert AddressGuard().permits("target.example", [address], 443)


def test_one_inside_address_among_public_ones_refuses_the_name() -> None:
    assert not AddressGuard().permits("target.example", ["8.8.8.8", "127.0.0.1"], 443)


def test_a_name_without_address_is_refused() -> None:
    assert not AddressGuard().permits("target.example", [], 443)


@pytest.mark.parametrize("port", [22, 25, 6379, 27017])
def test_ports_of_other_protocols_are_refused(port: int) -> None:
    assert not AddressGuard().permits("target.example", ["8.8.8.8"], port)


@pytest.mark.parametrize(
    ("entry", "host", "address", "port", "permitted"),
    [
        ("127.0.0.0/8", "x", "127.0.0.1", 8080, True),
        ("127.0.0.0/8", "x", "10.0.0.1", 8080, False),
        ("127.0.0.1:8080", "x", "127.0.0.1", 8080, True),
        ("127.0.0.1:8080", "x", "127.0.0.1", 8081, False),
        ("127.0.0.1", "x", "::ffff:127.0.0.1", 80, False),
        ("::1", "x", "::1", 80, True),
        ("fd00::/8", "x", "fd12::1", 80, True),
        ("[::1]:9000", "x", "::1", 9000, True),
        ("[::1]:9000", "x", "::1", 9001, False),
        ("llm.internal", "LLM.internal.", "10.0.0.1", 80, True),
        ("llm.internal", "other.internal", "10.0.0.1", 80, False),
        ("llm.internal:8443", "llm.internal", "10.0.0.1", 8443, True),
        ("llm.internal:8443", "llm.internal", "10.0.0.1", 80, False),
        ("10.0.0.0/8:6379", "x", "10.0.0.1", 6379, True),
    ],
)
def test_the_allow_list_names_networks_hosts_and_ports(
    entry: str, host: str, address: str, port: int, permitted: bool
) -> None:
    assert AddressGuard([AllowedTarget.parse(entry)]).permits(host, [address], port) is permitted


@pytest.mark.parametrize("entry", ["", "a b", "10.0.0.0/99", "host:0", "host:99999", "host:x", "[::1", "http://host/"])
def test_a_malformed_allow_list_entry_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError):
        AllowedTarget.parse(entry)
