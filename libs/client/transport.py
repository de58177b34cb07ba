"""Decides how a connection is secured: plaintext on this machine, TLS everywhere else unless told otherwise."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc

_SCHEMES = ("dns:", "ipv4:", "ipv6:")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS with the roots that gRPC brings along, or with those of a file of PEM certificates."""

    ca_file: Path | None = None

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return what gRPC takes.

        Raises:
            OSError: the file cannot be read.
        """
        return grpc.ssl_channel_credentials(self.ca_file.read_bytes() if self.ca_file else None)


def channel_credentials(address: str, tls: Tls | bool | None) -> grpc.ChannelCredentials | None:
    """Return the channel's credentials, None for plaintext.

    `tls` None means plaintext for this machine's own addresses and TLS for all others; False means plaintext wherever
    it goes, which shows tokens and prompts to the network.
    """
    match tls:
        case None:
            return None if is_local(address) else Tls().channel_credentials()
        case Tls():
            return tls.channel_credentials()
        case True:
            return Tls().channel_credentials()
        case False:
            return None


def is_local(address: str) -> bool:
    """Say whether an address (`host:port` or a gRPC target) cannot leave this machine."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in _SCHEMES:
        # `dns://authority/host:port`: only what comes after the last slash is the host.
        address = address.removeprefix(scheme)
    host = address.rpartition("/")[2].rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
