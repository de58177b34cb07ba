"""Ids: sortable by time, safe in URLs, headers and stream entries, and without dots, as Standard Webhooks asks."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import UTC, datetime

from ulid import ULID

_EPOCH = datetime.fromtimestamp(0, UTC)
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_SHIFTS = range(120, -1, -10)


def new_id() -> str:
    """Return a new ULID: 26 characters of Crockford's base 32, sorted by creation time."""
    return _text(ULID())


def new_id_at(instant: datetime) -> str:
    """Return a new ULID that sorts as if made at an instant."""
    return _text(ULID.from_datetime(instant))


def first_id_at(instant: datetime) -> str:
    """Return the least id that an instant's ids can have: a bound for a range of ids. None is older than 1970."""
    return str(ULID.from_datetime(max(instant, _EPOCH)))[:10] + "0" * 16


def _text(ulid: ULID) -> str:
    """Return `str(ulid)` in half its time, two digits at once: a job that is created needs two ids, each call one."""
    number = int.from_bytes(ulid.bytes, "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def process_id(service: str) -> str:
    """Return a name for this process that neither another process nor a restart has: service, host, pid, nonce."""
    return f"{service}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
