"""Packs a body for its way to the scheduler: compressed if that pays, inline if it is small then, else as a source.

Large bodies are packed in a few threads, file to file, so that neither the event loop waits nor memory grows with
them.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

import zstandard

from libs.common.value_type import value_type
from services.executor.adapters.http.answer_body import Body
from services.executor.domain.answer import HEAD_BYTES, Answer
from services.executor.domain.attempt import Header

COMPRESS_FROM_BYTES = 1_024
INLINE_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024
_LEVEL = 3


@dataclass(frozen=True, slots=True)
class FileSource:
    """Implements `AnswerSource` over a file."""

    file: IO[bytes]

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start."""
        self.file.seek(0)
        while chunk := self.file.read(CHUNK_BYTES):
            yield chunk

    def close(self) -> None:
        """Delete the file."""
        self.file.close()


@value_type
class _Packed:
    """The stored form of a body."""

    file: IO[bytes]
    size: int
    encoding: str


class AnswerPacker:
    """Makes answers out of bodies."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)

    async def pack(self, headers: tuple[Header, ...], content_type: str, body: Body) -> Answer:
        """Return the answer; the body belongs to it from here on."""
        if body.in_memory:
            packed, digest = self._pack_small(body)
        else:
            packed, digest = await asyncio.get_running_loop().run_in_executor(self._threads, _pack_large, body)
        inline = packed.size <= INLINE_BYTES
        answer = Answer(
            headers=headers,
            content_type=content_type,
            body=_all_of(packed.file) if inline else b"",
            source=None if inline else FileSource(packed.file),
            head=b"" if inline else body.read(HEAD_BYTES),
            encoding=packed.encoding,
            stored_size_bytes=body.size,
            total_size_bytes=body.total,
            truncated=body.truncated,
            sha256=digest,
            warning="the answer was longer than what is kept" if body.truncated else "",
        )
        if inline:
            packed.file.close()
        if packed.file is not body.spool:
            body.close()
        return answer

    def _pack_small(self, body: Body) -> tuple[_Packed, bytes]:
        kept = body.read()
        digest = hashlib.sha256(kept).digest()
        if body.size > COMPRESS_FROM_BYTES:
            compressed = self._compressor.compress(kept)
            if len(compressed) < body.size:
                return _Packed(io.BytesIO(compressed), len(compressed), "zstd"), digest
        return _Packed(body.spool, body.size, ""), digest


def _pack_large(body: Body) -> tuple[_Packed, bytes]:
    """Compress file to file; runs in a thread, with a compressor of its own."""
    body.spool.seek(0)
    target = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the answer
    try:
        _, size = zstandard.ZstdCompressor(level=_LEVEL).copy_stream(body.spool, target)
        digest = body.sha256()
    except BaseException:
        target.close()
        raise
    if size < body.size:
        return _Packed(target, size, "zstd"), digest
    target.close()
    return _Packed(body.spool, body.size, ""), digest


def _all_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
