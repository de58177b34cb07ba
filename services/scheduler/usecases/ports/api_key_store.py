"""The API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from services.scheduler.domain.api_key import ApiKey
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.caller import OrgScope


class ApiKeyStore(Protocol):
    """The API keys. A project-limited scope sees only the keys that reach no other project."""

    async def insert(self, key: ApiKey, *, audit: AuditEvent | None = None) -> None:
        """Store a new key durably, with its event."""
        ...

    async def find(self, key_id: str) -> ApiKey | None:
        """Return the key with that id, of any org: asked before there is a caller."""
        ...

    async def find_page(self, scope: OrgScope, *, show_revoked: bool, after: str, limit: int) -> Sequence[ApiKey]:
        """Return keys, newest first, that come after the key id `after` (empty: from the start)."""
        ...

    async def revoke(self, scope: OrgScope, key_id: str, now: datetime, *, audit: AuditEvent | None = None) -> ApiKey:
        """Make a key stop to work; one that was revoked before keeps its first revoke time.

        Raises:
            NotFoundError: no such key within the scope.
        """
        ...
