"""Loopback ports for servers that must keep them.

Ports are taken below the range from which the kernel serves outgoing connections: a server that is restarted would
otherwise find its port in use by somebody's client now and then.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
PORTS = range(15_000, 32_000)


def is_free(port: int) -> bool:
    """Say whether a server could listen on a loopback port right now."""
    with socket.socket() as probe:
        # As servers do: a port whose old connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def is_listening(port: int) -> bool:
    """Say whether a server listens on a loopback port, even if it is too busy or too frozen to answer."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((LOOPBACK, port)) == 0


def free_ports(count: int) -> list[int]:
    """Return distinct ports that are free now, at random, so that two sessions hardly ever choose the same."""
    chosen: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(chosen) == count:
            break
        if is_free(port):
            chosen.append(port)
    if len(chosen) < count:
        raise OSError(f"fewer than {count} free ports in {PORTS}")
    return chosen


def preferred_port(port: int) -> int:
    """Return this port if it is free, else a free one."""
    return port if is_free(port) else free_ports(1)[0]


def remembered_ports(memory: Path, count: int) -> list[int]:
    """Return the ports noted in a file, or fresh ones, noted there, when they do not fit or are no longer free."""
    known: Sequence[int] = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() else []
    if len(known) == count and all(is_free(port) for port in known):
        return list(known)
    ports = free_ports(count)
    memory.write_text(json.dumps(ports), encoding="utf-8")
    return ports
