"""API keys: static credentials of an org, `pk_<id>.<secret>`.

What is stored is the SHA-256 of the secret. A slow password hash would protect secrets that people choose; this one is
256 random bits, which no search finds, so a fast hash is right and keeps calls cheap (docs/decisions).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime

SECRET_BYTES = 32
_TOKEN = re.compile(r"(pk_[0-9A-HJKMNP-TV-Z]{26})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored: everything but its secret."""

    key_id: str
    org_id: str
    name: str
    secret_hash: bytes
    scopes: frozenset[str]
    create_time: datetime
    creator: str
    project_ids: frozenset[str] | None = None
    """The projects it may touch; None: all of the org."""
    expire_time: datetime | None = None
    revoke_time: datetime | None = None

    def accepts(self, secret: str) -> bool:
        """Whether the secret is this key's; takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(self.secret_hash, hash_secret(secret))

    def refusal(self, now: datetime) -> str | None:
        """Return the reason why the key does not work at an instant, or None when it does."""
        if self.revoke_time is not None:
            return "API_KEY_REVOKED"
        if self.expire_time is not None and self.expire_time <= now:
            return "API_KEY_EXPIRED"
        return None


def encode_secret(random: bytes) -> str:
    """Return the text form of a secret's random bytes."""
    return base64.urlsafe_b64encode(random).decode().rstrip("=")


def hash_secret(secret: str) -> bytes:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def format_token(key_id: str, secret: str) -> str:
    """Return the credential as its owner sends it."""
    return f"{key_id}.{secret}"


def parse_token(token: str) -> tuple[str, str] | None:
    """Return a credential's key id and secret, or None for what is not an API key."""
    match = _TOKEN.fullmatch(token)
    return (match[1], match[2]) if match else None
