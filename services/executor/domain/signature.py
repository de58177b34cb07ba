"""Signs requests as Standard Webhooks asks, symmetric form v1, so that a target can tell who sent the body and when.

Signed is `id.timestamp.body` over the raw bytes as sent. The id is the execution's, the same over all its attempts;
the timestamp is the attempt's own, in whole seconds, so that a receiver can refuse replays. During a rotation each
live secret adds a signature, and a receiver accepts any match.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence


def sign(message_id: str, timestamp: int, body: bytes, secret: bytes) -> str:
    """Return `v1,<base64>` for the body under one decoded secret."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    digest = hmac.digest(secret, signed, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def signature_headers(message_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """Return the three headers, one signature for each secret; nothing without secrets.

    Raises:
        ValueError: the id holds a dot, which would let two different messages have one signed form.
    """
    if not secrets:
        return {}
    if "." in message_id:
        raise ValueError("a signed message's id holds no dot")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(message_id, timestamp, body, secret) for secret in secrets),
    }
