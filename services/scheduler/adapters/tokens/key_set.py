"""The public keys that tokens are verified with: a JSON Web Key Set from a file or a URL, kept fresh.

Each key has exactly one algorithm, which follows from the key and never from a token. Keys of other kinds are passed
over; above all symmetric ones, which have no place in a public set.

A duty refreshes the set every few minutes. A token with an unknown key id asks for a refresh at once, so that a new key
works as soon as it is used; but only so often, or callers who invent ids could make us flood the issuer. When the
source is away the keys at hand stay in force for an hour; after that nobody can say whether they still hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from libs.common.clock import Clock
from libs.common.errors import UnavailableError
from libs.common.logs import get_logger

MIN_REFETCH_SECONDS = 10.0
"""Between two refreshes that unknown key ids ask for."""
MAX_AGE_SECONDS = 3600.0
MAX_KEYS = 100
_MIN_RSA_BITS = 2048
_ALGORITHMS: Mapping[tuple[str, str], str] = {
    ("RSA", ""): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}

Fetch = Callable[[], Awaitable[bytes]]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """What a signature is checked with, and the only algorithm it is checked by."""

    key: Any
    algorithm: str


class KeySet:
    """The keys by their id."""

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str, VerificationKey] = {}
        self._fresh_at: float | None = None
        self._tried_at: float | None = None
        self._refreshing = asyncio.Lock()

    async def find(self, key_id: str) -> VerificationKey | None:
        """Return the key with that id, looking at the source when it is new to us.

        Raises:
            UnavailableError: the source has been away for too long.
        """
        if key_id not in self._keys or not self._is_fresh():
            async with self._refreshing:
                # Whoever waited for the lock finds here what the one before it fetched.
                if (key_id not in self._keys or not self._is_fresh()) and self._may_refetch():
                    await self._load()
        if not self._is_fresh():
            raise UnavailableError(
                "KEY_SET_UNAVAILABLE",
                "the issuer's keys cannot be read, so no token can be checked",
                retry_after_seconds=MIN_REFETCH_SECONDS,
            )
        return self._keys.get(key_id)

    async def refresh(self) -> None:
        """Read the source; the duty that keeps the set fresh."""
        async with self._refreshing:
            await self._load()

    def _is_fresh(self) -> bool:
        return self._fresh_at is not None and self._clock.monotonic() - self._fresh_at < MAX_AGE_SECONDS

    def _may_refetch(self) -> bool:
        return self._tried_at is None or self._clock.monotonic() - self._tried_at >= MIN_REFETCH_SECONDS

    async def _load(self) -> None:
        self._tried_at = self._clock.monotonic()
        try:
            keys = read_key_set(await self._fetch())
        except (OSError, ValueError) as error:
            log.warning("key_set.unavailable", error=type(error).__name__, detail=str(error)[:200])
            return
        if keys.keys() != self._keys.keys():
            log.info("key_set.changed", key_ids=sorted(keys))
        self._keys = keys
        self._fresh_at = self._tried_at


def read_key_set(document: bytes) -> Mapping[str, VerificationKey]:
    """Return the usable keys of a JSON Web Key Set by their ids.

    Raises:
        ValueError: it is not a key set, or no key in it can be used.
    """
    parsed = orjson.loads(document)
    listed = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"not a JSON Web Key Set of at most {MAX_KEYS} keys")
    keys = {item["kid"]: key for item in listed if isinstance(item, dict) and (key := _read_key(item)) is not None}
    if not keys:
        raise ValueError("no key in the set can verify signatures")
    return keys


def _read_key(item: Mapping[str, Any]) -> VerificationKey | None:
    algorithm = _ALGORITHMS.get((str(item.get("kty")), str(item.get("crv", ""))))
    operations = item.get("key_ops", ["verify"])
    usable = (
        algorithm is not None
        and isinstance(item.get("kid"), str)
        and item.get("alg", algorithm) == algorithm
        and item.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and "d" not in item  # a private key that somebody published is no secret any more
    )
    if not usable:
        return None
    try:
        key = PyJWK(dict(item), algorithm).key
    except (PyJWTError, ValueError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        return None
    return VerificationKey(key, str(algorithm))
