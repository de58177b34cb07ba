"""Blobs in the database itself, in the form that GridFS has for files.

The driver's own writer collects up to 48 MB before it sends anything, which is a whole answer for each upload under
way, and more than one operation's time limit may be enough for. So the parts are inserted here, a few at a time, and
the file's record last: until it stands, nothing can be read. Its reader holds 16 MB for each download under way, and
so they are read here, too, a few at a time. Deleting is the driver's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from bson import Int64
from gridfs import NoFile
from gridfs.asynchronous import AsyncGridFSBucket
from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from libs.common.errors import NotFoundError
from services.scheduler.adapters.mongo.connection import translate_error
from services.scheduler.adapters.mongo.documents import BlobDocument

BUCKET = "answers"
FILES = f"{BUCKET}.files"
PARTS = f"{BUCKET}.chunks"
PARTS_INDEX = IndexModel([("files_id", ASCENDING), ("n", ASCENDING)], unique=True)
"""The driver's writer would make it; without it each reading and each removal walks over all answers there are."""

PART_BYTES = 256 * 1024
PARTS_A_WRITE = 4
PARTS_A_READ = 4


class GridFsBlobs:
    """Implements `BlobStore` over the database that the documents are bound to."""

    @property
    def _database(self) -> AsyncDatabase[dict[str, Any]]:
        return BlobDocument.get_pymongo_collection().database

    @property
    def _bucket(self) -> AsyncGridFSBucket:
        return AsyncGridFSBucket(self._database, bucket_name=BUCKET)

    async def write(self, blob_id: str, chunks: AsyncIterator[bytes]) -> None:
        """Store bytes durably under a new id."""
        parts = self._database[PARTS]
        length = count = 0
        waiting: list[dict[str, Any]] = []
        with _translated():
            async for part in _parts(chunks):
                waiting.append({"files_id": blob_id, "n": count, "data": part})
                count, length = count + 1, length + len(part)
                if len(waiting) == PARTS_A_WRITE:
                    await parts.insert_many(waiting)
                    waiting = []
            if waiting:
                await parts.insert_many(waiting)
            record = {"_id": blob_id, "filename": blob_id, "length": Int64(length), "chunkSize": PART_BYTES}
            await self._database[FILES].insert_one({**record, "uploadDate": datetime.now(UTC)})

    async def open_stream(self, blob_id: str) -> AsyncIterator[bytes]:
        """Return an answer's stored bytes in parts."""
        with _translated():
            record = await self._database[FILES].find_one({"_id": blob_id})
            left: int = record["length"] if record else -1
            if record:
                query = self._database[PARTS].find({"files_id": blob_id}, sort=[("n", 1)], batch_size=PARTS_A_READ)
                async with query as parts:
                    async for part in parts:
                        left -= len(part["data"])
                        yield bytes(part["data"])
        if left:
            # Never written, or removed meanwhile.
            raise NotFoundError("blob", blob_id)

    async def delete(self, blob_id: str) -> None:
        """Remove a blob, or the parts that an upload has left."""
        # Without a record the driver complains, after it has removed the parts.
        with _translated(), suppress(NoFile):
            await self._bucket.delete(blob_id)


@contextmanager
def _translated() -> Iterator[None]:
    """Say in our words when the database is away."""
    try:
        yield
    except NoFile:
        raise
    except PyMongoError as error:
        ours = translate_error(error)
        if ours is None:
            raise
        raise ours from error


async def _parts(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same bytes in parts of one size, which is how GridFS finds a place in a file; the last may be short."""
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= PART_BYTES:
            yield bytes(buffer[:PART_BYTES])
            del buffer[:PART_BYTES]
    if buffer:
        yield bytes(buffer)
