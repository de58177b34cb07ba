"""The target hosts in MongoDB: one document for each host of an org.

Callers and executors write different fields: limits and resets by compare-and-set on `version`, observations whenever
they are newer, and only while no reset came between. A host without limits of its own goes when nobody has called it
for a while; its reset count may go with it, for what executors shared under it is gone long before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from libs.common.clock import Clock
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.documents import TargetHostDocument
from services.scheduler.adapters.mongo.duplicate_keys import only_duplicates
from services.scheduler.domain.target_host import HostLimits, TargetHost
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.target_hosts import REMEMBERED_SECONDS, HostKey

KEPT_UNSEEN = timedelta(days=30)
"""How long a host without limits of its own stays listed after its last call."""
MAX_REMEMBERED = 20_000


class MongoTargetHostStore:
    """Implements `TargetHostStore` and `KnownLimits`."""

    def __init__(self, outbox: AuditOutbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._codec = Codec()
        self._remembered: OrderedDict[HostKey, tuple[TargetHost, float]] = OrderedDict()

    @property
    def _hosts(self) -> AsyncCollection[dict[str, Any]]:
        return TargetHostDocument.get_pymongo_collection()

    async def get(self, org_id: str, host: str) -> TargetHost:
        """Return a host; one that was never seen is a new one."""
        document = await self._hosts.find_one({"_id": _id(org_id, host)})
        return self._decode(document) if document else TargetHost(org_id, host)

    async def find_page(self, org_id: str, *, after: str, limit: int) -> Sequence[TargetHost]:
        """Return an org's hosts by name."""
        query = {"org_id": org_id, "host": {"$gt": after}}
        cursor = self._hosts.find(query, sort=[("host", 1)], limit=limit, hint="org_host")
        return [self._decode(document) async for document in cursor]

    async def count_limited(self, org_id: str) -> int:
        """Return how many hosts of an org have limits of their own."""
        return await self._hosts.count_documents({"org_id": org_id, "limited": True})

    async def replace(self, changed: TargetHost, *, audit: AuditEvent | None = None) -> bool:
        """Store limits and reset count; False when a caller changed it since `changed.version` was read."""
        fields: Document = {
            "org_id": changed.org_id,
            "host": changed.host,
            "limits": self._codec.encode(changed.limits),
            "limited": changed.limits != HostLimits(),
            "reset_count": changed.reset_count,
            "version": changed.version + 1,
        }
        update: Document = {"$set": fields, **self._outbox.push(audit)}
        if changed.observation is None:
            fields["expire_time"] = self._clock.now() + KEPT_UNSEEN
            update["$unset"] = {"observation": ""}
        try:
            result = await self._hosts.update_one(
                {"_id": _id(changed.org_id, changed.host), "version": changed.version},
                update,
                upsert=changed.version == 0,
            )
        except DuplicateKeyError:
            return False
        finally:
            self._remembered.pop((changed.org_id, changed.host), None)
        stored = result.matched_count == 1 or result.upserted_id is not None
        if stored:
            self._outbox.written(audit)
        return stored

    async def observe(self, hosts: Sequence[TargetHost]) -> None:
        """Store observations; one from before a host's last reset, or older than the stored one, changes nothing."""
        writes = [_observation_write(host, self._codec) for host in hosts if host.observation is not None]
        if not writes:
            return
        try:
            await self._hosts.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            # What did not match is there, and was to be inserted: it knows better.
            if not only_duplicates(error):
                raise

    async def load(self, hosts: Collection[HostKey]) -> Mapping[HostKey, TargetHost]:
        """Return hosts, all that are asked for."""
        now = self._clock.monotonic()
        loaded: dict[HostKey, TargetHost] = {}
        for key in hosts:
            remembered = self._remembered.get(key)
            if remembered is not None and now < remembered[1]:
                loaded[key] = remembered[0]
        unknown = [key for key in hosts if key not in loaded]
        if unknown:
            loaded |= await self._read(unknown, until=now + REMEMBERED_SECONDS)
        return loaded

    async def _read(self, keys: Sequence[HostKey], until: float) -> Mapping[HostKey, TargetHost]:
        cursor = self._hosts.find({"_id": {"$in": [_id(*key) for key in keys]}})
        found = {document["_id"]: self._decode(document) async for document in cursor}
        # Hosts that were never seen are remembered, too: most have no limits, and every batch would ask again.
        read = {key: found.get(_id(*key)) or TargetHost(*key) for key in keys}
        for key, host in read.items():
            self._remembered[key] = (host, until)
            self._remembered.move_to_end(key)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return read

    def _decode(self, document: Mapping[str, Any]) -> TargetHost:
        return self._codec.decode(document, TargetHost)


def _id(org_id: str, host: str) -> str:
    return f"{org_id}|{host}"


def _observation_write(host: TargetHost, codec: Codec) -> UpdateOne:
    observation = host.observation
    if observation is None:
        raise ValueError("nothing was observed")
    newer: list[Document] = [
        {"observation": None},
        {"observation.observe_time": {"$lte": observation.observe_time}},
    ]
    return UpdateOne(
        {"_id": _id(host.org_id, host.host), "reset_count": {"$lte": host.reset_count}, "$or": newer},
        {
            "$set": {
                "observation": codec.encode(observation),
                "expire_time": observation.observe_time + KEPT_UNSEEN,
            },
            "$setOnInsert": {
                "org_id": host.org_id,
                "host": host.host,
                "limits": codec.encode(HostLimits()),
                "limited": False,
                "reset_count": host.reset_count,
                "version": 0,
            },
        },
        upsert=True,
    )
