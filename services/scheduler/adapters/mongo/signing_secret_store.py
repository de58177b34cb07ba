"""The signing secrets in MongoDB: one document an org, so that "at most two live" is one compare-and-set."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from libs.common.clock import Clock
from libs.common.logs import get_logger
from services.scheduler.adapters.key_ring import KeyRing, UnreadableSecretError, key_id_of
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.documents import SigningSecretsDocument
from services.scheduler.domain.signing_secret import SigningSecret, SigningSecrets, decode_secret
from services.scheduler.usecases.audit import AuditEvent

CACHE_SECONDS = 5.0
"""How long another replica may go on signing with a revoked secret."""

MAX_CACHED_ORGS = 10_000

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Keys:
    """The opened keys of an org, each with its end, and until when (monotonic) they are believed."""

    keys: Sequence[tuple[bytes, datetime | None]]
    until: float


class MongoSigningSecretStore:
    """Implements `SigningSecretStore` and `SigningKeys`."""

    def __init__(self, key_ring: KeyRing, outbox: AuditOutbox, clock: Clock) -> None:
        self._ring = key_ring
        self._outbox = outbox
        self._clock = clock
        self._codec = Codec()
        self._cache: OrderedDict[str, _Keys] = OrderedDict()

    @property
    def _collection(self) -> AsyncCollection[dict[str, Any]]:
        return SigningSecretsDocument.get_pymongo_collection()

    async def get(self, org_id: str) -> SigningSecrets:
        """Return an org's secrets without their values."""
        document = await self._collection.find_one({"_id": org_id})
        return self._decode(document) if document else SigningSecrets(org_id)

    async def replace(self, changed: SigningSecrets, *, audit: AuditEvent | None = None) -> bool:
        """Store them; False when somebody else wrote since `changed.version` was read."""
        sealed = [_sealed(self._ring, changed.org_id, secret) for secret in changed.secrets]
        fields = {**self._fields(sealed), "version": changed.version + 1}
        try:
            result = await self._collection.update_one(
                {"_id": changed.org_id, "version": changed.version},
                {"$set": fields, **self._outbox.push(audit)},
                upsert=changed.version == 0,
            )
        except DuplicateKeyError:
            return False
        finally:
            # Whether it was stored or lost a race: what this replica remembered is not what stands there.
            self._cache.pop(changed.org_id, None)
        stored = result.matched_count == 1 or result.upserted_id is not None
        if stored:
            self._outbox.written(audit)
        return stored

    async def load(self, org_ids: Collection[str]) -> Mapping[str, Sequence[bytes]]:
        """Return the live keys by org, newest first."""
        unknown = [org_id for org_id in org_ids if self._cached(org_id) is None]
        if unknown:
            await self._read(unknown)
        now = self._clock.now()
        loaded: dict[str, Sequence[bytes]] = {}
        for org_id in org_ids:
            cached = self._cache.get(org_id)
            keys = [key for key, end in cached.keys if end is None or now < end] if cached else []
            if keys:
                loaded[org_id] = keys
        return loaded

    def reseal(self, document: Mapping[str, Any]) -> Document:
        """Return the fields of a stored document, sealed by the current key.

        Raises:
            UnreadableSecretError: one of them does not open.
        """
        org_id = document["_id"]
        return self._fields(
            [
                _sealed(self._ring, org_id, replace(secret, value=_opened(self._ring, org_id, secret), sealed=""))
                if secret.sealed
                else secret
                for secret in self._decode(document).secrets
            ]
        )

    def _fields(self, secrets: Sequence[SigningSecret]) -> Document:
        return {
            "secrets": [self._codec.encode(secret) for secret in secrets],
            "secret_key_ids": sorted({key_id_of(secret.sealed) for secret in secrets if secret.sealed}),
        }

    def _decode(self, document: Mapping[str, Any]) -> SigningSecrets:
        secrets = [self._codec.decode(secret, SigningSecret) for secret in document["secrets"]]
        return SigningSecrets(document["_id"], secrets, document["version"])

    def _cached(self, org_id: str) -> _Keys | None:
        keys = self._cache.get(org_id)
        return keys if keys is not None and self._clock.monotonic() < keys.until else None

    async def _read(self, org_ids: Collection[str]) -> None:
        until = self._clock.monotonic() + CACHE_SECONDS
        found = {document["_id"]: document async for document in self._collection.find({"_id": {"$in": list(org_ids)}})}
        for org_id in org_ids:
            # Orgs without secrets are remembered, too: most have none, and every batch would ask again.
            keys = self._open_all(self._decode(found[org_id])) if org_id in found else []
            self._cache[org_id] = _Keys(keys, until)
            self._cache.move_to_end(org_id)
        while len(self._cache) > MAX_CACHED_ORGS:
            self._cache.popitem(last=False)

    def _open_all(self, secrets: SigningSecrets) -> list[tuple[bytes, datetime | None]]:
        keys = []
        for secret in secrets.live(self._clock.now()):
            try:
                keys.append((decode_secret(_opened(self._ring, secrets.org_id, secret)), secret.expire_time))
            except UnreadableSecretError as error:
                # The other one may still sign; without any, receivers see an unsigned request and refuse it.
                log.error(  # noqa: TRY400 - the traceback tells nothing more
                    "signing_secret.unreadable", org_id=secrets.org_id, id=secret.secret_id, why=str(error)
                )
        return keys


def _sealed(ring: KeyRing, org_id: str, secret: SigningSecret) -> SigningSecret:
    if not secret.value:
        return secret
    return replace(secret, value="", sealed=ring.seal(secret.value, "signing_secret", org_id, secret.secret_id))


def _opened(ring: KeyRing, org_id: str, secret: SigningSecret) -> str:
    return ring.open(secret.sealed, "signing_secret", org_id, secret.secret_id)
