"""The orgs' settings in MongoDB. A document holds only what was written; the rest is the installation's default."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from libs.common.clock import Clock
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.documents import OrgDocument
from services.scheduler.domain.org import OrgSettings
from services.scheduler.usecases.audit import AuditEvent

CACHE_SECONDS = 10.0
MAX_CACHED_ORGS = 10_000
_MILLISECOND = timedelta(milliseconds=1)


class MongoOrgStore:
    """Implements `OrgStore`."""

    def __init__(self, defaults: OrgSettings, outbox: AuditOutbox, clock: Clock) -> None:
        """Take the settings of an org that has written none; their org id does not matter."""
        self._defaults = defaults
        self._outbox = outbox
        self._clock = clock
        self._cache: OrderedDict[str, tuple[OrgSettings, float]] = OrderedDict()

    @property
    def _orgs(self) -> AsyncCollection[dict[str, Any]]:
        return OrgDocument.get_pymongo_collection()

    async def read(self, org_id: str) -> OrgSettings:
        """Return an org's settings, at most some seconds old."""
        cached = self._cache.get(org_id)
        if cached is not None and self._clock.monotonic() < cached[1]:
            return cached[0]
        return await self.get(org_id)

    async def get(self, org_id: str) -> OrgSettings:
        """Return an org's settings as they are stored now."""
        document = await OrgDocument.get(org_id)
        settings = replace(self._defaults, org_id=org_id)
        if document is not None:
            settings = _merged(settings, document.model_dump())
        self._cache[org_id] = (settings, self._clock.monotonic() + CACHE_SECONDS)
        self._cache.move_to_end(org_id)
        if len(self._cache) > MAX_CACHED_ORGS:
            self._cache.popitem(last=False)
        return settings

    async def replace(
        self, settings: OrgSettings, written: Collection[str], *, audit: AuditEvent | None = None
    ) -> bool:
        """Store the named fields; False when somebody else wrote since `settings.version` was read."""
        fields: dict[str, Any] = {field: _stored(getattr(settings, field)) for field in written}
        try:
            result = await self._orgs.update_one(
                {"_id": settings.org_id, "version": settings.version},
                {"$set": {**fields, "version": settings.version + 1}, **self._outbox.push(audit)},
                upsert=settings.version == 0,
            )
        except DuplicateKeyError:
            return False
        finally:
            # Whether it was stored or lost a race: what this replica remembered is not what stands there.
            self._cache.pop(settings.org_id, None)
        stored = result.matched_count == 1 or result.upserted_id is not None
        if stored:
            self._outbox.written(audit)
        return stored


def _stored(value: str | int | timedelta) -> str | int:
    return value // _MILLISECOND if isinstance(value, timedelta) else value


def _merged(defaults: OrgSettings, document: dict[str, Any]) -> OrgSettings:
    min_interval = document.get("min_interval")
    return OrgSettings(
        org_id=defaults.org_id,
        max_jobs=document.get("max_jobs", defaults.max_jobs),
        max_stored_bytes=document.get("max_stored_bytes", defaults.max_stored_bytes),
        max_creates_per_minute=document.get("max_creates_per_minute", defaults.max_creates_per_minute),
        min_interval=defaults.min_interval if min_interval is None else timedelta(milliseconds=min_interval),
        job_failed_callback_url=document.get("job_failed_callback_url", defaults.job_failed_callback_url),
        version=document["version"],
    )
