"""Creates, rotates and revokes an org's signing secrets, and hands their keys to granted attempts."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from libs.common.clock import Clock
from libs.common.errors import AbortedError
from libs.common.ids import new_id
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.signing_secret import (
    SECRET_BYTES,
    SigningSecret,
    SigningSecrets,
    new_secret,
    revoke,
    rotate,
)
from services.scheduler.usecases.audit import AuditEvent, FieldChange, call_event
from services.scheduler.usecases.caller import Caller

MAX_TRIES = 10


class SigningSecretStore(Protocol):
    """The orgs' signing secrets, encrypted at rest. One writer: the scheduler."""

    async def get(self, org_id: str) -> SigningSecrets:
        """Return an org's secrets without their values."""
        ...

    async def replace(self, changed: SigningSecrets, *, audit: AuditEvent | None = None) -> bool:
        """Store them; False when somebody else wrote since `changed.version` was read."""
        ...


class SigningKeys(Protocol):
    """What signs the requests of an org."""

    async def load(self, org_ids: Collection[str]) -> Mapping[str, Sequence[bytes]]:
        """Return the live keys by org, newest first, through a cache of some seconds; orgs without any are absent."""
        ...


@dataclass(frozen=True, slots=True)
class ManageSigningSecrets:
    """Serves SigningSecretService."""

    store: SigningSecretStore
    clock: Clock

    async def list(self, caller: Caller) -> Sequence[SigningSecret]:
        """Return the live secrets, newest first, without their values."""
        return (await self.store.get(caller.scope.org_id)).live(self.clock.now())

    async def rotate(self, caller: Caller, overlap: timedelta) -> SigningSecret:
        """Create the current secret; what was current before signs, too, until the overlap ends.

        Raises:
            InvalidArgumentError: an overlap out of range.
            FailedPreconditionError: two are live already.
            AbortedError: others kept changing them.
        """
        for _ in range(MAX_TRIES):
            present = await self.store.get(caller.scope.org_id)
            now = truncate_to_millis(self.clock.now())
            created = new_secret(new_id(), secrets.token_bytes(SECRET_BYTES), now)
            changed = rotate(present, created, overlap, now)
            audit = call_event(
                caller, now, "signing_secret", created.secret_id, changes=_ends(present, changed, created)
            )
            if await self.store.replace(changed, audit=audit):
                return created
        raise _kept_changing()

    async def revoke(self, caller: Caller, secret_id: str) -> SigningSecret:
        """End a secret at once; one that has ended stays as it is.

        Raises:
            NotFoundError: the org has no such secret.
            AbortedError: others kept changing them.
        """
        for _ in range(MAX_TRIES):
            present = await self.store.get(caller.scope.org_id)
            now = truncate_to_millis(self.clock.now())
            changed = revoke(present, secret_id, now)
            found = next(secret for secret in changed.secrets if secret.secret_id == secret_id)
            if changed.secrets == list(present.secrets):
                return found
            audit = call_event(caller, now, "signing_secret", secret_id, changes=_ends(present, changed, None))
            if await self.store.replace(changed, audit=audit):
                return found
        raise _kept_changing()


def _ends(before: SigningSecrets, after: SigningSecrets, created: SigningSecret | None) -> list[FieldChange]:
    """Return what the audit tells: which secret was made, and whose end was set; never a value."""
    ends = {secret.secret_id: secret.expire_time for secret in before.secrets}
    changes = [FieldChange("signing_secret.secret_id", "", f'"{created.secret_id}"')] if created else []
    for secret in after.secrets:
        if secret.expire_time is not None and secret.expire_time != ends.get(secret.secret_id):
            before_end = ends.get(secret.secret_id)
            changes.append(
                FieldChange(
                    f"signing_secrets.{secret.secret_id}.expire_time",
                    f'"{before_end.isoformat()}"' if before_end else "",
                    f'"{secret.expire_time.isoformat()}"',
                )
            )
    return changes


def _kept_changing() -> AbortedError:
    return AbortedError("CONCURRENT_CHANGE", "the signing secrets kept changing during the call")
