"""A stored answer as a stream of chunks: as it is stored, or decompressed on the way, never whole in memory twice.

Compressed bytes are fed to the decompressor in small slices, and the output ends at the size that was declared when the
answer was stored, so that a few bytes cannot make a stream without end.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Iterator

import zstandard

from libs.common.errors import InternalError

CHUNK_BYTES = 64 * 1024
_SLICE_BYTES = 512
"""Compressed bytes taken at once: of the best compressed input these become some megabytes."""

_GZIP_WINDOW = 31

Decompress = Callable[[bytes], bytes]


async def answer_chunks(
    stored: AsyncIterator[bytes], *, encoding: str, size_bytes: int, raw: bool
) -> AsyncIterator[bytes]:
    """Yield an answer in chunks of CHUNK_BYTES, the last one shorter.

    Raises:
        InternalError: the stored bytes are not what their record says.
    """
    decompress = None if raw else _decompressor(encoding)
    buffer = bytearray()
    sent = 0
    async for part in stored:
        for piece in [part] if decompress is None else _decompressed(part, decompress):
            buffer += piece
            while len(buffer) >= CHUNK_BYTES:
                yield bytes(buffer[:CHUNK_BYTES])
                del buffer[:CHUNK_BYTES]
                sent += CHUNK_BYTES
            if not raw and sent + len(buffer) > size_bytes:
                raise InternalError("ANSWER_CORRUPT", "the stored answer is longer than its record says")
    if not raw and sent + len(buffer) < size_bytes:
        raise InternalError("ANSWER_CORRUPT", "the stored answer is shorter than its record says")
    if buffer:
        yield bytes(buffer)


async def single_part(data: bytes) -> AsyncIterator[bytes]:
    """Yield an answer that is at hand as the only part of a stream."""
    yield data


def _decompressed(part: bytes, decompress: Decompress) -> Iterator[bytes]:
    try:
        for start in range(0, len(part), _SLICE_BYTES):
            yield decompress(part[start : start + _SLICE_BYTES])
    except (zlib.error, zstandard.ZstdError) as error:
        raise InternalError("ANSWER_CORRUPT", "the stored answer does not decompress") from error


def _decompressor(encoding: str) -> Decompress | None:
    match encoding:
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress
        case "gzip":
            return zlib.decompressobj(_GZIP_WINDOW).decompress
        case _:
            return None
