"""API keys in memory; held to the same suite as the real one (tests/contract/test_api_key_store.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from libs.common.errors import NotFoundError
from services.scheduler.domain.api_key import ApiKey
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.caller import OrgScope


class MemoryApiKeyStore:
    """Implements `ApiKeyStore`; `reads` counts what authentication asked, `audited` holds what travelled along."""

    def __init__(self) -> None:
        self._keys: dict[str, ApiKey] = {}
        self.reads = 0
        self.audited: list[AuditEvent] = []

    async def insert(self, key: ApiKey, *, audit: AuditEvent | None = None) -> None:
        """Store a new key."""
        self._keys[key.key_id] = key
        self.audited += [audit] if audit else []

    async def find(self, key_id: str) -> ApiKey | None:
        """Return the key with that id, of any org."""
        self.reads += 1
        return self._keys.get(key_id)

    async def find_page(self, scope: OrgScope, *, show_revoked: bool, after: str, limit: int) -> Sequence[ApiKey]:
        """Return the keys of the scope, newest first, that come after the key id `after`."""
        newest = sorted(self._keys.values(), key=lambda key: key.key_id, reverse=True)
        shown = [key for key in newest if _is_within(scope, key) and (show_revoked or key.revoke_time is None)]
        return [key for key in shown if not after or key.key_id < after][:limit]

    async def revoke(self, scope: OrgScope, key_id: str, now: datetime, *, audit: AuditEvent | None = None) -> ApiKey:
        """Make a key stop to work; the first revoke time stays."""
        key = self._keys.get(key_id)
        if key is None or not _is_within(scope, key):
            raise NotFoundError("api_key", key_id)
        if key.revoke_time is None:
            key = self._keys[key_id] = replace(key, revoke_time=now)
            self.audited += [audit] if audit else []
        return key


def _is_within(scope: OrgScope, key: ApiKey) -> bool:
    if key.org_id != scope.org_id:
        return False
    return scope.project_ids is None or (key.project_ids is not None and key.project_ids <= scope.project_ids)
