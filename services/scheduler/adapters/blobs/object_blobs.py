"""Blobs in an object store: S3, Google Cloud Storage, Azure, or a folder, by the store's address.

A blob becomes visible when its writer is closed. An upload that ends before leaves nothing to be read; what a store
keeps of unfinished uploads, its own rules for aborted multipart uploads remove.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from libs.common.errors import NotFoundError, UnavailableError

PART_BYTES = 5 * 1024 * 1024
"""The smallest part that S3 takes."""
CONCURRENT_PARTS = 2
READ_BYTES = 256 * 1024

_SCHEMES = frozenset({"az", "gs", "memory", "s3"})


class ObjectBlobs:
    """Implements `BlobStore`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def write(self, blob_id: str, chunks: AsyncIterator[bytes]) -> None:
        """Store bytes durably under a new id."""
        try:
            writer = obstore.open_writer_async(
                self._store, blob_id, buffer_size=PART_BYTES, max_concurrency=CONCURRENT_PARTS
            )
            async for chunk in chunks:
                await writer.write(chunk)
            # Only here, not on the way out of a failure: closing is what makes it visible.
            await writer.close()
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def open_stream(self, blob_id: str) -> AsyncIterator[bytes]:
        """Return an answer's stored bytes in parts."""
        try:
            found = await obstore.get_async(self._store, blob_id)
            async for part in found.stream(min_chunk_size=READ_BYTES):
                yield bytes(part)
        except FileNotFoundError as error:
            raise NotFoundError("blob", blob_id) from error
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def delete(self, blob_id: str) -> None:
        """Remove a blob."""
        try:
            await obstore.delete_async(self._store, blob_id)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error


def open_object_store(url: str) -> ObjectStore:
    """Return the store at an address; credentials come from the environment, as each store's own tools read them.

    Raises:
        ValueError: there is no store of that kind, or the address does not say which one.
    """
    scheme = url.partition(":")[0]
    try:
        if scheme == "file":
            return from_url(url, mkdir=True)
        if scheme in _SCHEMES:
            return from_url(url)
    except (BaseError, ValueError) as error:
        # Only its first line: the rest repeats what the address says, which may be a secret.
        raise ValueError(f"{scheme}: {str(error).partition(chr(10))[0]}") from None
    raise ValueError(f"not the address of a store: file:// or one of {', '.join(sorted(_SCHEMES))}")


def _unavailable(error: Exception) -> UnavailableError:
    kind = type(error).__name__
    return UnavailableError(
        "BLOB_STORE_UNAVAILABLE", f"the store of answers did not do it: {kind}", retry_after_seconds=1
    )
