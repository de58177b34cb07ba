"""Idempotency keys: a caller's own name for one call, by which a repetition of it is known."""

from __future__ import annotations

import hashlib

from libs.common.errors import InvalidArgumentError

MAX_KEY_LENGTH = 128


def check_idempotency_key(key: str) -> None:
    """Refuse a key that is not printable ASCII without spaces, or too long; an empty one means none.

    Raises:
        InvalidArgumentError: INVALID_KEY on `idempotency_key`.
    """
    if len(key) > MAX_KEY_LENGTH or not all("!" <= character <= "~" for character in key):
        raise InvalidArgumentError.of(
            "idempotency_key", "INVALID_KEY", f"must be at most {MAX_KEY_LENGTH} visible ASCII characters"
        )


def unique_part(*texts: str) -> str:
    """Return what makes an execution's id unique for a key: the same texts, the same execution."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:26]
