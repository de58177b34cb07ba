"""Moves stored secrets to the current key, and says which keys are still needed.

A duty of every replica re-encrypts documents of older keys in small batches, each document by compare-and-set. Replicas
may meet; the later one matches nothing. A document that a caller changes meanwhile may come back under the key it was
read with, and is simply found again. So a key can be taken out of the ring once nothing is counted under it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection

from libs.common.errors import FailedPreconditionError
from libs.common.logs import get_logger
from services.scheduler.adapters.key_ring import KeyRing, UnreadableSecretError
from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.documents import JobDocument, SigningSecretsDocument
from services.scheduler.adapters.mongo.header_secrets import HeaderSecrets
from services.scheduler.adapters.mongo.signing_secret_store import MongoSigningSecretStore
from services.scheduler.domain.job import Header

BATCH = 200
KEY_IDS = "secret_key_ids"
_HEADERS = "definition.target.headers"
# What both kinds need; a job has no secrets of its own, and an org's document no headers.
_READ = {"org_id": 1, "revision": 1, _HEADERS: 1, "version": 1, "secrets": 1}

_Reseal = Callable[[Mapping[str, Any]], tuple[Document, Document]]
"""Makes of a stored document what must not have changed, and the fields to set."""

log = get_logger(__name__)


class KeyRotation:
    """Re-encrypts what is under older keys."""

    def __init__(self, key_ring: KeyRing, headers: HeaderSecrets, signing_secrets: MongoSigningSecretStore) -> None:
        self._ring = key_ring
        self._headers = headers
        self._signing_secrets = signing_secrets
        self._codec = Codec()
        self._unreadable: set[str] = set()

    async def run_once(self) -> int:
        """Move one batch of each kind; returns how many documents were moved."""
        old = sorted(self._ring.key_ids - {self._ring.current_id})
        if not old:
            return 0
        moved = await self._move(_jobs(), old, self._resealed_job)
        moved += await self._move(_signing_secrets(), old, self._resealed_secrets)
        if moved:
            log.info("key_rotation.moved", documents=moved, key_id=self._ring.current_id)
        return moved

    async def _move(self, collection: AsyncCollection[dict[str, Any]], old: list[str], reseal: _Reseal) -> int:
        query: Document = {KEY_IDS: {"$in": old}}
        if self._unreadable:
            query["_id"] = {"$nin": sorted(self._unreadable)}
        moved = 0
        async for document in collection.find(query, _READ, limit=BATCH, hint=KEY_IDS):
            try:
                expected, fields = reseal(document)
            except UnreadableSecretError as error:
                self._unreadable.add(document["_id"])
                log.error("key_rotation.unreadable", id=document["_id"], collection=collection.name, why=str(error))  # noqa: TRY400 - the traceback tells nothing more
                continue
            result = await collection.update_one({"_id": document["_id"], **expected}, {"$set": fields})
            moved += result.modified_count
        return moved

    def _resealed_job(self, document: Mapping[str, Any]) -> tuple[Document, Document]:
        headers = [self._codec.decode(header, Header) for header in document["definition"]["target"]["headers"]]
        resealed = self._headers.reseal(document["org_id"], document["_id"], headers)
        # Each write of the definition makes a new revision; this one makes none, for no caller sees a difference.
        return (
            {"revision": document["revision"]},
            {_HEADERS: [self._codec.encode(header) for header in resealed], KEY_IDS: [self._ring.current_id]},
        )

    def _resealed_secrets(self, document: Mapping[str, Any]) -> tuple[Document, Document]:
        version = document["version"]
        return {"version": version}, {**self._signing_secrets.reseal(document), "version": version + 1}


async def count_by_key() -> dict[str, dict[str, int]]:
    """Return the documents by collection and key id."""
    counts: dict[str, dict[str, int]] = {}
    for collection in (_jobs(), _signing_secrets()):
        counted: Counter[str] = Counter()
        for key_id in await collection.distinct(KEY_IDS):
            counted[key_id] = await collection.count_documents({KEY_IDS: key_id}, hint=KEY_IDS)
        counts[collection.name] = dict(counted)
    return counts


async def require_keys(key_ring: KeyRing) -> None:
    """Refuse to serve with a ring that lacks a key which stored secrets need.

    Raises:
        FailedPreconditionError: ENCRYPTION_KEY_MISSING.
    """
    for collection in (_jobs(), _signing_secrets()):
        missing = sorted(set(await collection.distinct(KEY_IDS)) - key_ring.key_ids)
        if missing:
            raise FailedPreconditionError(
                "ENCRYPTION_KEY_MISSING",
                f"secrets in {collection.name} are encrypted under the key {missing[0]!r}, which the key ring lacks: "
                "put it back, behind the current one, until key-status counts nothing under it",
                metadata={"keyId": missing[0], "collection": collection.name},
            )


def _jobs() -> AsyncCollection[dict[str, Any]]:
    return JobDocument.get_pymongo_collection()


def _signing_secrets() -> AsyncCollection[dict[str, Any]]:
    return SigningSecretsDocument.get_pymongo_collection()
