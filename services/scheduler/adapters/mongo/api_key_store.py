"""The API keys in MongoDB. Only hashes of their secrets are here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from libs.common.errors import NotFoundError
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.documents import ApiKeyDocument
from services.scheduler.domain.api_key import ApiKey
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.caller import OrgScope


class MongoApiKeyStore:
    """Implements `ApiKeyStore`."""

    def __init__(self, outbox: AuditOutbox) -> None:
        self._outbox = outbox

    async def insert(self, key: ApiKey, *, audit: AuditEvent | None = None) -> None:
        """Store a new key durably."""
        await ApiKeyDocument(
            id=key.key_id,
            org_id=key.org_id,
            name=key.name,
            secret_hash=key.secret_hash,
            scopes=sorted(key.scopes),
            project_ids=None if key.project_ids is None else sorted(key.project_ids),
            create_time=key.create_time,
            creator=key.creator,
            expire_time=key.expire_time,
            revoke_time=key.revoke_time,
            **self._outbox.fields(audit),
        ).insert()
        self._outbox.written(audit)

    async def find(self, key_id: str) -> ApiKey | None:
        """Return the key with that id, of any org."""
        document = await ApiKeyDocument.get(key_id)
        return _to_key(document) if document else None

    async def find_page(self, scope: OrgScope, *, show_revoked: bool, after: str, limit: int) -> Sequence[ApiKey]:
        """Return the keys of the scope, newest first, that come after the key id `after` (empty: from the start)."""
        where = _within(scope)
        if after:
            where["_id"] = {"$lt": after}
        if not show_revoked:
            where["revoke_time"] = None
        query = ApiKeyDocument.find(where).sort("-_id").limit(limit)
        return [_to_key(document) async for document in query]

    async def revoke(self, scope: OrgScope, key_id: str, now: datetime, *, audit: AuditEvent | None = None) -> ApiKey:
        """Make a key stop to work; one that was revoked before keeps its first revoke time."""
        where = {"_id": key_id, **_within(scope)}
        result = await ApiKeyDocument.get_pymongo_collection().update_one(
            {**where, "revoke_time": None}, {"$set": {"revoke_time": now}, **self._outbox.push(audit)}
        )
        if result.modified_count == 1:
            self._outbox.written(audit)
        document = await ApiKeyDocument.find_one(where)
        if document is None:
            raise NotFoundError("api_key", key_id)
        return _to_key(document)


def _within(scope: OrgScope) -> dict[str, Any]:
    """Return the filter for keys that reach nothing beyond the scope."""
    where: dict[str, Any] = {"org_id": scope.org_id}
    if scope.project_ids is not None:
        where["project_ids"] = {"$type": "array", "$not": {"$elemMatch": {"$nin": sorted(scope.project_ids)}}}
    return where


def _to_key(document: ApiKeyDocument) -> ApiKey:
    return ApiKey(
        key_id=document.id,
        org_id=document.org_id,
        name=document.name,
        secret_hash=document.secret_hash,
        scopes=frozenset(document.scopes),
        create_time=document.create_time,
        creator=document.creator,
        project_ids=None if document.project_ids is None else frozenset(document.project_ids),
        expire_time=document.expire_time,
        revoke_time=document.revoke_time,
    )
