"""The secrets that sign an org's requests, as Standard Webhooks has them: `whsec_` and the base64 of the key's bytes.

At most two are live: the current one, and its predecessor until the overlap ends, so that receivers change over without
a gap. Everything here is a value; the secret itself is made by the caller, who has the randomness.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from libs.common.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

SECRET_BYTES = 32
PREFIX = "whsec_"
HINT_LENGTH = 4
MAX_LIVE = 2
MAX_OVERLAP = timedelta(days=30)
DEFAULT_OVERLAP = timedelta(hours=24)
KEPT_ENDED = 10
"""Ended secrets that an org remembers, without their values, so that revoking one twice is no error."""


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """One secret. It signs until `expire_time`; unset while it is the current one."""

    secret_id: str
    create_time: datetime
    hint: str
    value: str = ""
    """As the receiver has it; empty when read from the store, where it is `sealed`, and once it has ended."""
    sealed: str = ""
    expire_time: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether it still signs."""
        return self.expire_time is None or now < self.expire_time


@dataclass(frozen=True, slots=True)
class SigningSecrets:
    """All secrets of an org, newest first."""

    org_id: str
    secrets: Sequence[SigningSecret] = ()
    version: int = 0
    """Grows with each write; 0: never written."""

    def live(self, now: datetime) -> list[SigningSecret]:
        """Return those that sign, newest first."""
        return [secret for secret in self.secrets if secret.is_live(now)]


def new_secret(secret_id: str, key: bytes, now: datetime) -> SigningSecret:
    """Return a new current secret of a key's random bytes."""
    value = PREFIX + base64.b64encode(key).decode()
    return SigningSecret(secret_id, now, value[-HINT_LENGTH:], value)


def decode_secret(value: str) -> bytes:
    """Return the bytes that sign."""
    return base64.b64decode(value.removeprefix(PREFIX))


def rotate(present: SigningSecrets, new: SigningSecret, overlap: timedelta, now: datetime) -> SigningSecrets:
    """Return the secrets with a new current one; its predecessor signs, too, until the overlap ends.

    Raises:
        InvalidArgumentError: an overlap out of range.
        FailedPreconditionError: two are live already.
    """
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise InvalidArgumentError.of("overlap", "OUT_OF_RANGE", f"is not within 0 to {MAX_OVERLAP.days} days")
    live = present.live(now)
    if len(live) >= MAX_LIVE:
        oldest = live[-1]
        raise FailedPreconditionError(
            "ROTATION_IN_PROGRESS",
            f"secrets {live[0].secret_id} and {oldest.secret_id} are both live; revoke one, or wait for its end",
            metadata={"newerSecretId": live[0].secret_id, "olderSecretId": oldest.secret_id},
        )
    ending = [secret if secret.expire_time else replace(secret, expire_time=now + overlap) for secret in live]
    ended = [secret for secret in present.secrets if not secret.is_live(now)]
    return _with(present, [new, *ending, *ended], now)


def revoke(present: SigningSecrets, secret_id: str, now: datetime) -> SigningSecrets:
    """Return the secrets with one of them ended; one that has ended stays as it is.

    Raises:
        NotFoundError: no such secret.
    """
    if all(secret.secret_id != secret_id for secret in present.secrets):
        raise NotFoundError("signing_secret", secret_id)
    return _with(
        present,
        [
            replace(secret, expire_time=now) if secret.secret_id == secret_id and secret.is_live(now) else secret
            for secret in present.secrets
        ],
        now,
    )


def _with(present: SigningSecrets, secrets: Sequence[SigningSecret], now: datetime) -> SigningSecrets:
    """Return the org's secrets changed; of those that ended, the values go at once and the oldest altogether."""
    live = [secret for secret in secrets if secret.is_live(now)]
    ended = [replace(secret, value="", sealed="") for secret in secrets if not secret.is_live(now)]
    return replace(present, secrets=[*live, *ended[:KEPT_ENDED]])
