"""Knows a caller by its API key, at the cost of one database read every few seconds a key.

A key that was found is believed for that long, so a revoked one stops to work within it. What was not found is not
remembered: a new key works at once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from libs.common.clock import Clock
from libs.common.errors import UnauthenticatedError
from services.scheduler.domain.api_key import ApiKey, parse_token
from services.scheduler.usecases.caller import Caller, OrgScope
from services.scheduler.usecases.ports.api_key_store import ApiKeyStore

MAX_CACHED_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class _Believed:
    """A key whose secret was right, and until when (monotonic) that is taken as known."""

    key: ApiKey
    until: float


class VerifyApiKey:
    """Checks the secret of `pk_...` credentials."""

    def __init__(self, keys: ApiKeyStore, clock: Clock, *, cache_seconds: float) -> None:
        self._keys = keys
        self._clock = clock
        self._cache_seconds = cache_seconds
        # By the credential's hash, not by the credential: a dump of this process's memory shows fewer secrets.
        self._cache: OrderedDict[bytes, _Believed] = OrderedDict()

    async def verify(self, token: str) -> Caller:
        """Return who owns the credential.

        Raises:
            UnauthenticatedError: unknown, wrong, expired or revoked.
        """
        key = await self._find(token)
        refusal = key.refusal(self._clock.now())
        if refusal is not None:
            raise UnauthenticatedError(
                refusal, f"the API key {key.key_id} does not work any more", metadata={"keyId": key.key_id}
            )
        return Caller(key.key_id, OrgScope(key.org_id, key.project_ids), key.scopes)

    async def _find(self, token: str) -> ApiKey:
        digest = hashlib.sha256(token.encode()).digest()
        believed = self._cache.get(digest)
        if believed is not None and self._clock.monotonic() < believed.until:
            self._cache.move_to_end(digest)
            return believed.key
        asked = self._clock.monotonic()
        parts = parse_token(token)
        key = await self._keys.find(parts[0]) if parts else None
        if parts is None or key is None or not key.accepts(parts[1]):
            self._cache.pop(digest, None)
            raise UnauthenticatedError("INVALID_API_KEY", "the API key is unknown or wrong")
        self._cache[digest] = _Believed(key, asked + self._cache_seconds)
        self._cache.move_to_end(digest)
        if len(self._cache) > MAX_CACHED_KEYS:
            self._cache.popitem(last=False)
        return key
