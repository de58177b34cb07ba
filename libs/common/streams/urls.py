"""Redis addresses: one URL says whether Redis is a single server, watched by Sentinel, or a Cluster.

    redis://[user:password@]host:port[/db]                          a single server
    redis+sentinel://[user:password@]host:port,host:port/service[/db]   the addresses are those of the sentinels
    redis+cluster://[user:password@]host:port,host:port             any nodes of the cluster

`rediss` instead of `redis` speaks TLS. A password is never part of an error message or a `repr`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

Topology = Literal["single", "sentinel", "cluster"]

_DEFAULT_PORTS: dict[Topology, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is, and as whom to talk to it."""

    topology: Topology
    hosts: tuple[tuple[str, int], ...]
    tls: bool
    db: int = 0
    service: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def parse_redis_url(url: str) -> RedisAddress:
    """Read a Redis URL.

    Raises:
        ValueError: it is not one; the message does not repeat it.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if scheme not in {"redis", "rediss"} or kind not in {"", "sentinel", "cluster"}:
        raise ValueError("the scheme must be redis, rediss, redis+sentinel, redis+cluster, or one of these with rediss")
    topology: Topology = "sentinel" if kind == "sentinel" else "cluster" if kind == "cluster" else "single"
    user_info, _, host_list = parts.netloc.rpartition("@")
    username, _, password = user_info.partition(":")
    hosts = tuple(_host(item, _DEFAULT_PORTS[topology]) for item in host_list.split(","))
    if topology == "single" and len(hosts) != 1:
        raise ValueError("several hosts need redis+sentinel or redis+cluster")
    service, db = _service_and_db(topology, parts.path)
    return RedisAddress(
        topology,
        hosts,
        tls=scheme == "rediss",
        db=db,
        service=service,
        username=unquote(username) or None,
        password=unquote(password) or None,
    )


def _host(text: str, default_port: int) -> tuple[str, int]:
    # urlsplit knows no lists of hosts, but reads one of them, with its brackets for IPv6, as it should be read.
    try:
        one = urlsplit(f"//{text}")
        host, port = one.hostname, one.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ValueError("each host must be given as host:port")
    return host, port or default_port


def _service_and_db(topology: Topology, path: str) -> tuple[str, int]:
    segments = [unquote(segment) for segment in path.split("/") if segment]
    service = ""
    if topology == "sentinel":
        if not segments:
            raise ValueError("redis+sentinel needs the service's name as its path")
        service = segments.pop(0)
    if not segments:
        return service, 0
    if topology == "cluster" or len(segments) > 1 or not segments[0].isdecimal():
        raise ValueError("the path may hold a database number only, and a cluster has none")
    return service, int(segments[0])
