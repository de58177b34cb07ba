"""Reads an answer's body: piece by piece, never more than the policy keeps, in memory only as long as it is small.

Nothing is ever decompressed: an answer is stored as it came, so that a few kilobytes cannot become gigabytes. Reading
stops at the cap and closes the connection, so that an endless answer ends there.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from dataclasses import dataclass
from typing import IO

from services.executor.adapters.http.target_wire import TargetResponse
from services.executor.domain.answer import SHORT_BYTES
from services.executor.domain.attempt import ResponsePolicy
from services.executor.domain.secret_mask import SecretMask

IN_MEMORY_BYTES = 256 * 1024
"""A larger body goes to a temporary file."""
_DIGEST_BYTES = 256 * 1024


class NoRoomError(Exception):
    """An answer cannot be kept here. No OSError, for those are the connection's and speak of the target."""


@dataclass(slots=True)
class Body:
    """What was read of an answer, masked; whoever has it closes it."""

    spool: IO[bytes]
    size: int
    """Bytes in the spool, which is a file from `IN_MEMORY_BYTES` on."""
    total: int
    """Bytes that the target sent or announced; -1 when not known."""
    truncated: bool
    """The target had more than was read."""

    @property
    def in_memory(self) -> bool:
        """Return whether all of it is in memory."""
        return self.size <= IN_MEMORY_BYTES

    def read(self, limit: int = -1) -> bytes:
        """Return the first bytes, or all; of a body that is not in memory only the first."""
        self.spool.seek(0)
        return self.spool.read(limit)

    def sha256(self) -> bytes:
        """Return the digest of what is kept."""
        digest = hashlib.sha256()
        self.spool.seek(0)
        while chunk := self.spool.read(_DIGEST_BYTES):
            digest.update(chunk)
        return digest.digest()

    def cut(self, limit: int) -> None:
        """Keep the first bytes only."""
        if self.size > limit:
            self.spool.truncate(limit)
            self.size, self.truncated = limit, True

    def close(self) -> None:
        """Let go of the bytes."""
        self.spool.close()


async def read_body(response: TargetResponse, policy: ResponsePolicy, mask: SecretMask) -> Body:
    """Read the body up to the policy's cap; the response is done with afterwards.

    An answer that is not to be stored is read on to the cap all the same, so that its connection can be used again, but
    only its beginning is kept, unless checks have to see it.
    """
    whole = policy.store_full_response or policy.checks
    keep = policy.max_size_bytes if whole else min(policy.max_size_bytes, SHORT_BYTES)
    stream = mask.stream()
    body = Body(io.BytesIO(), 0, 0, truncated=False)
    content = response.content
    try:
        while not content.at_eof():
            piece = await content.readany()
            room = policy.max_size_bytes - body.total
            body.total += len(piece)
            # With what is beyond the cap, for a secret may begin before it.
            _append(body, stream.feed(piece), keep)
            if len(piece) > room:
                body.truncated = True
                response.close()
                break
        _append(body, stream.rest(cut=body.truncated), keep)
        response.require_whole()
    except BaseException:
        # An answer that nobody reads on blocks its connection, which must go and not linger in the pool.
        response.close()
        body.close()
        raise
    response.release()
    body.truncated = body.truncated or body.size < body.total
    if body.total > policy.max_size_bytes:
        announced = response.content_length
        body.total = -1 if announced is None else announced
    return body


def _append(body: Body, data: bytes, keep: int) -> None:
    if not data or body.size >= keep:
        return
    kept = data[: keep - body.size]
    try:
        if body.in_memory and body.size + len(kept) > IN_MEMORY_BYTES:
            # Not SpooledTemporaryFile: it would cost each short answer a handful of calls.
            begun = body.read()
            body.spool = tempfile.TemporaryFile()  # noqa: SIM115 - its owner closes it
            body.spool.write(begun)
        body.spool.write(kept)
    except OSError as error:
        raise NoRoomError from error
    body.size += len(kept)
