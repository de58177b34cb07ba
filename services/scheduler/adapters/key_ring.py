"""The keys that encrypt secrets at rest, and the only module that handles them.

A sealed value is text, `<key id>.<base64>`: AES-256-GCM with a random nonce, and the key's id in front, so that a value
always says which key opens it. The associated data binds it to its place (org, object, field): a value that somebody
copies to another record in the database does not open there.

The first key of a ring seals, all of them open. To rotate, give all replicas the new key behind the current one, then
in front of it; wait until `python -m services.scheduler.admin key-status` counts nothing under the old one; then take
it out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
INSECURE_KEY_ID = "insecure-development"
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class UnreadableSecretError(Exception):
    """A sealed value does not open: its key is not in the ring, or it was changed or moved. Tells none of its text."""


class InvalidKeyRingError(ValueError):
    """What should be a key ring is none. The message never repeats any of it."""


class KeyRing:
    """Seals and opens short secrets. Immutable; safe to share."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take keys of 32 bytes by id, the current one first."""
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.current_id = next(iter(keys))

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of all keys, the current one included."""
        return frozenset(self._ciphers)

    def seal(self, text: str, *place: str) -> str:
        """Return the text encrypted for a place, the same that opens it."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.current_id].encrypt(nonce, text.encode(), _bind(place))
        return f"{self.current_id}.{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *place: str) -> str:
        """Return the text of a sealed value.

        Raises:
            UnreadableSecretError: it was sealed by no key of this ring, for another place, or was changed.
        """
        key_id, _, payload = sealed.partition(".")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnreadableSecretError(f"no key {key_id[:32]!r} in the ring")
        try:
            data = base64.b64decode(payload, validate=True)
            return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bind(place)).decode()
        except (InvalidTag, ValueError) as error:
            raise UnreadableSecretError("the value was changed or belongs to another place") from error


def key_id_of(sealed: str) -> str:
    """Return the id of the key that sealed a value."""
    return sealed.partition(".")[0]


def parse_key_ring(text: str) -> KeyRing:
    """Return the ring of `<id>:<base64 of 32 bytes>`, several with commas or line ends between, the current one first.

    Raises:
        InvalidKeyRingError: with the sentence to show, without any key.
    """
    keys: dict[str, bytes] = {}
    for number, entry in enumerate((part.strip() for part in re.split(r"[,\n]", text)), 1):
        if not entry:
            continue
        key_id, separator, encoded = entry.partition(":")
        if not separator or not _KEY_ID.fullmatch(key_id):
            raise InvalidKeyRingError(f"entry {number} is not <id>:<base64>, with an id of letters, digits, - and _")
        if key_id in keys:
            raise InvalidKeyRingError(f"key id {key_id!r} is there twice")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            # The cause is cut off: a traceback must not come near a key.
            raise InvalidKeyRingError(f"key {key_id!r} is not base64") from None
        if len(key) != KEY_BYTES:
            raise InvalidKeyRingError(f"key {key_id!r} has {len(key)} bytes, not {KEY_BYTES}")
        keys[key_id] = key
    if not keys:
        raise InvalidKeyRingError("it holds no key")
    return KeyRing(keys)


def read_key_ring(file: Path) -> KeyRing:
    """Return the ring of a file, such as a mounted secret.

    Raises:
        InvalidKeyRingError: the file cannot be read, or holds no ring.
    """
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidKeyRingError(f"{file} cannot be read: {type(error).__name__}") from None
    return parse_key_ring(text)


def insecure_key_ring() -> KeyRing:
    """Return the ring of development mode: its key is in this source, so it protects nothing from anybody."""
    return KeyRing({INSECURE_KEY_ID: hashlib.sha256(b"punctual: not a secret, for development only").digest()})


def _bind(place: tuple[str, ...]) -> bytes:
    # Lengths make it unambiguous: ("a", "bc") and ("ab", "c") are two places.
    return b"".join(len(part.encode()).to_bytes(4) + part.encode() for part in place)
