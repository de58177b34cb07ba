"""The audit events in MongoDB, as callers list them; how they get here is in `audit_outbox`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from libs.common.ids import first_id_at
from services.scheduler.adapters.audit_trail import mark_event_stored
from services.scheduler.adapters.mongo.audit_outbox import AuditRelay
from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.documents import AuditEventDocument
from services.scheduler.usecases.audit import AuditEvent, AuditFilter
from services.scheduler.usecases.caller import OrgScope


class MongoAuditLog:
    """Implements `AuditLog`."""

    def __init__(self, relay: AuditRelay, retention: timedelta) -> None:
        self._relay = relay
        self._retention = retention
        self._codec = Codec()

    async def record(self, event: AuditEvent) -> None:
        """Store an event that no change carries."""
        document = {**self._codec.encode(event), "expire_time": event.event_time + self._retention}
        with suppress(DuplicateKeyError):
            await AuditEventDocument.model_validate(document).insert()
        mark_event_stored()

    async def find_page(self, scope: OrgScope, where: AuditFilter, *, after: str, limit: int) -> Sequence[AuditEvent]:
        """Return events, newest first, that come after the event id `after`."""
        # Whoever reads the audit after a change sees the change, whichever replica made it.
        await self._relay.relay()
        query = AuditEventDocument.find(_list_filter(scope, where, after)).sort("-_id").limit(limit)
        return [self._codec.decode(document.model_dump(by_alias=True), AuditEvent) async for document in query]


def _list_filter(scope: OrgScope, where: AuditFilter, after: str) -> Document:
    clauses: list[Document] = [{"org_id": scope.org_id}]
    if scope.project_ids is not None:
        clauses.append({"project_id": {"$in": sorted(scope.project_ids)}})
    equal = {name: getattr(where, name) for name in ("object_type", "object_id", "actor", "method")}
    clauses.extend({name: wanted} for name, wanted in equal.items() if wanted)
    # Ids are made of their event's time, so bounds of time are ranges of the index that sorts.
    if where.event_after:
        clauses.append({"_id": {"$gte": first_id_at(where.event_after)}})
    if where.event_before:
        clauses.append({"_id": {"$lt": first_id_at(where.event_before)}})
    if after:
        clauses.append({"_id": {"$lt": after}})
    return {"$and": clauses}
