"""Masks a request's secrets where the target echoes them, so that no answer carries them into the database.

The mask has the secret's length, so that sizes, offsets and Content-Length stay true and the rest of the answer
survives byte for byte. Values shorter than eight characters are left alone: masking them would eat ordinary text. A
value with a scheme in front ("Bearer x") is masked with and without it, and as JSON would escape it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from services.executor.domain.attempt import Header

MIN_SECRET_CHARS = 8


class SecretMask:
    """The secrets of one request; made once for a call and used on its headers, its messages and its body."""

    def __init__(self, headers: Iterable[Header]) -> None:
        secrets = [header.value for header in headers if header.sensitive]
        forms = {form for secret in secrets for form in _forms(secret)} if secrets else ()
        # Longest first: a secret that is part of another must not leave the rest of it readable.
        self._forms = sorted(forms, key=len, reverse=True)

    @property
    def masks(self) -> bool:
        """Whether there is anything to mask."""
        return bool(self._forms)

    def beginning(self, data: bytes) -> bytes:
        """Return the data with the beginning of a secret masked that it ends with."""
        for size in range(len(data), MIN_SECRET_CHARS - 1, -1):
            if any(form.startswith(data[-size:]) for form in self._forms):
                return data[:-size] + b"*" * size
        return data

    def bytes(self, data: bytes) -> bytes:
        """Return the data with every secret that it holds whole replaced by as many asterisks."""
        for form in self._forms:
            data = data.replace(form, b"*" * len(form))
        return data

    def text(self, text: str) -> str:
        """Return the text with every secret replaced."""
        if not self._forms:
            return text
        return self.bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def stream(self) -> MaskedStream:
        """Return a filter for one answer's body."""
        return MaskedStream(self, len(self._forms[0]) - 1 if self._forms else 0)


class MaskedStream:
    """Masks a body that comes in pieces; holds back as many bytes as a secret cut in two could need."""

    def __init__(self, mask: SecretMask, overlap: int) -> None:
        self._mask = mask
        self._overlap = overlap
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Return the masked bytes that no later piece can change."""
        if not self._overlap:
            return piece
        data = self._mask.bytes(self._held + piece)
        cut = max(len(data) - self._overlap, 0)
        self._held = data[cut:]
        return data[:cut]

    def rest(self, *, cut: bool) -> bytes:
        """Return what was held back; the body is over, or was cut, perhaps in the middle of a secret."""
        held, self._held = self._held, b""
        return self._mask.beginning(held) if cut else held


def _forms(value: str) -> set[bytes]:
    parts = {value, value.partition(" ")[2]}
    parts |= {json.dumps(part)[1:-1] for part in parts}
    return {part.encode("utf-8", "surrogateescape") for part in parts if len(part) >= MIN_SECRET_CHARS}
