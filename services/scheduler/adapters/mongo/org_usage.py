"""What orgs use of their quotas: jobs counted now and then, bytes of answers summed up as they come.

Answers leave by their expiry, which nobody sees. So their bytes are summed by the day on which they expire, and a sum
goes by the same index that lets its answers go: the total needs no scan over executions, and what a crash or a
repeated write makes of a sum is forgotten with its day.

Additions are collected and written by a duty every second, one update for each org and day, whatever the load. The
same duty finds out which orgs are over their quota, so that the report path only looks into a set.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection

from libs.common.clock import Clock
from services.scheduler.adapters.mongo.codec import Document
from services.scheduler.adapters.mongo.documents import JobDocument, StoredBytesDocument
from services.scheduler.domain.job import JobState
from services.scheduler.usecases.org_settings import OrgSettingsReader

MAX_COUNTED_ORGS = 10_000
_NOT_DELETED = sorted(set(JobState) - {JobState.DELETED})


@dataclass(slots=True)
class _JobCount:
    """A count, and what this replica added since."""

    jobs: int
    time: float


class MongoOrgUsage:
    """Implements `OrgUsage` and `AnswerQuota`."""

    def __init__(self, orgs: OrgSettingsReader, clock: Clock, retention: timedelta) -> None:
        self._orgs = orgs
        self._retention = retention
        self._clock = clock
        self._counts: OrderedDict[str, _JobCount] = OrderedDict()
        self._counting = asyncio.Lock()
        self._added: Counter[tuple[str, date]] = Counter()
        self._full: frozenset[str] = frozenset()

    @property
    def _sums(self) -> AsyncCollection[dict[str, Any]]:
        return StoredBytesDocument.get_pymongo_collection()

    async def job_count(self, org_id: str, max_age_seconds: float) -> int:
        """Return the jobs that are not deleted, counted no longer ago than that."""
        count = self._known_count(org_id, max_age_seconds)
        if count is None:
            # One caller counts, the others wait for it: the count of a large org takes tens of milliseconds.
            async with self._counting:
                count = self._known_count(org_id, max_age_seconds) or await self._count(org_id)
        return count.jobs

    def add_jobs(self, org_id: str, count: int) -> None:
        """Note that jobs were created, until they are counted anew."""
        if org_id in self._counts:
            self._counts[org_id].jobs += count

    async def stored_bytes(self, org_id: str) -> int:
        """Return the bytes of the org's stored answers."""
        return (await self._totals([org_id])).get(org_id, 0)

    def add_answer(self, org_id: str, size: int, end_time: datetime) -> None:
        """Note that an answer was stored, which stays for the retention from then."""
        if size > 0:
            self._added[org_id, (end_time + self._retention).date()] += size

    def is_full(self, org_id: str) -> bool:
        """Whether the org's stored answers exceed its quota, as known some seconds ago."""
        return org_id in self._full

    async def flush(self) -> int:
        """Write what was added since the last time, and find out who is over its quota; returns the orgs looked at."""
        added, self._added = self._added, Counter()
        if added:
            # If we die here, or the write fails, these bytes are not counted until they expire.
            await self._sums.bulk_write([_addition(*key, size) for key, size in added.items()], ordered=False)
        orgs = {org_id for org_id, _ in added} | self._full
        if orgs:
            totals = await self._totals(orgs)
            limits = {org_id: (await self._orgs.read(org_id)).max_stored_bytes for org_id in orgs}
            self._full = frozenset(org_id for org_id in orgs if totals.get(org_id, 0) > limits[org_id])
        return len(orgs)

    def _known_count(self, org_id: str, max_age_seconds: float) -> _JobCount | None:
        count = self._counts.get(org_id)
        return count if count is not None and self._clock.monotonic() - count.time <= max_age_seconds else None

    async def _count(self, org_id: str) -> _JobCount:
        jobs = await JobDocument.get_pymongo_collection().count_documents(
            {"org_id": org_id, "state": {"$in": _NOT_DELETED}}, hint="org_state"
        )
        count = self._counts[org_id] = _JobCount(jobs, self._clock.monotonic())
        self._counts.move_to_end(org_id)
        if len(self._counts) > MAX_COUNTED_ORGS:
            self._counts.popitem(last=False)
        return count

    async def _totals(self, org_ids: Collection[str]) -> dict[str, int]:
        pipeline: list[Document] = [
            # The index lets sums go within a minute; what expired counts no more even before.
            {"$match": {"org_id": {"$in": list(org_ids)}, "expire_time": {"$gt": self._clock.now()}}},
            {"$group": {"_id": "$org_id", "stored_bytes": {"$sum": "$stored_bytes"}}},
        ]
        cursor = await self._sums.aggregate(pipeline)
        return {group["_id"]: int(group["stored_bytes"]) async for group in cursor}


def _addition(org_id: str, day: date, size: int) -> UpdateOne:
    end_of_day = datetime.combine(day + timedelta(days=1), time(), UTC)
    return UpdateOne(
        {"_id": f"{org_id}/{day.isoformat()}"},
        {"$inc": {"stored_bytes": size}, "$setOnInsert": {"org_id": org_id, "expire_time": end_of_day}},
        upsert=True,
    )
