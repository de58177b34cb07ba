"""What the use cases rely on in a blob store, held against each kind of store; and the records of blobs likewise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from libs.common.errors import NotFoundError, UnavailableError
from services.scheduler.adapters.blobs.gridfs_blobs import PART_BYTES, PARTS_A_READ, PARTS_A_WRITE, GridFsBlobs
from services.scheduler.adapters.blobs.object_blobs import ObjectBlobs, open_object_store
from services.scheduler.adapters.mongo.blob_records import MongoBlobRecords
from services.scheduler.adapters.mongo.connection import open_client
from services.scheduler.adapters.mongo.migrations import bind_documents
from services.scheduler.domain.answer_blob import BlobRecord
from services.scheduler.testing.memory_blobs import MemoryBlobRecords, MemoryBlobs
from services.scheduler.usecases.answer_blobs import BlobRecords
from services.scheduler.usecases.ports.blob_store import BlobStore
from tests.support.scheduler_values import NOW, SECOND

BLOB = "01J9ZK3M5T7W9Y2B4D6F8H0J1K-1789000000000/3/01J9ZK3M5T7W9Y2B4D6F8H0J1M"


class NoSuchBytes(Exception):  # noqa: N818 - an event of the test, not an error
    """The bytes stop coming."""


@pytest.fixture(params=["memory", "gridfs", "folder", "object"])
def place(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """The kind of store, and where the database of GridFS is; only that one starts a server."""
    if request.param != "gridfs":
        return request.param, "", ""
    return request.param, request.getfixturevalue("mongo_uri"), request.getfixturevalue("migrated_database")


@pytest.fixture
async def store(place: tuple[str, str, str], tmp_path: Path) -> AsyncIterator[BlobStore]:
    kind, uri, name = place
    match kind:
        case "memory":
            yield MemoryBlobs()
        case "gridfs":
            client = open_client(uri)
            await bind_documents(client[name])
            yield GridFsBlobs()
            for collection in ("answers.files", "answers.chunks"):
                await client[name][collection].delete_many({})
            await client.close()
        case "folder":
            yield ObjectBlobs(open_object_store(f"file://{tmp_path}/answers"))
        case _:
            yield ObjectBlobs(open_object_store("memory:///"))


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(store: BlobStore, blob_id: str = BLOB) -> bytes:
    return b"".join([part async for part in store.open_stream(blob_id)])


@pytest.mark.parametrize(
    "size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, PARTS_A_WRITE * PART_BYTES, 6 * 1024 * 1024 + 7]
)
async def test_a_blob_is_read_as_it_was_written(store: BlobStore, size: int) -> None:
    data = bytes(i * 7 % 251 for i in range(1000)) * (size // 1000 + 1)
    await store.write(BLOB, pieces(data[:size]))
    assert await read(store) == data[:size]


async def test_what_was_never_written_is_not_found(store: BlobStore) -> None:
    await store.write(BLOB, pieces(b"here"))
    with pytest.raises(NotFoundError):
        await read(store, BLOB + "X")
    with pytest.raises(NotFoundError):
        await read(store, BLOB[:-1])


async def test_a_deleted_blob_is_gone_and_others_stay(store: BlobStore) -> None:
    await store.write(BLOB, pieces(b"one"))
    await store.write(BLOB + "2", pieces(b"two"))
    await store.delete(BLOB)
    with pytest.raises(NotFoundError):
        await read(store)
    assert await read(store, BLOB + "2") == b"two"


async def test_deleting_what_is_not_there_changes_nothing(store: BlobStore) -> None:
    await store.delete(BLOB)
    await store.write(BLOB, pieces(b"one"))
    await store.delete(BLOB)
    await store.delete(BLOB)


async def test_an_upload_that_breaks_off_leaves_nothing_to_be_read(store: BlobStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        for _ in range(3 * PARTS_A_WRITE):
            yield b"x" * PART_BYTES
        raise NoSuchBytes

    with pytest.raises(NoSuchBytes):
        await store.write(BLOB, broken())
    with pytest.raises(NotFoundError):
        await read(store)
    await store.delete(BLOB)


async def test_uploads_at_once_do_not_meet(store: BlobStore) -> None:
    wanted = {f"{BLOB}{n}": bytes([n]) * (PART_BYTES + n) for n in range(5)}
    await asyncio.gather(*(store.write(blob_id, pieces(data)) for blob_id, data in wanted.items()))
    assert {blob_id: await read(store, blob_id) for blob_id in wanted} == wanted


async def test_a_deleted_file_leaves_nothing_in_the_database(
    mongo_uri: str, migrated_database: str, mongo_janitor: MongoClient[dict[str, Any]]
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (PART_BYTES * PARTS_A_WRITE)
        raise NoSuchBytes

    async with open_client(mongo_uri) as client:
        await bind_documents(client[migrated_database])
        store = GridFsBlobs()
        await store.write(BLOB, pieces(b"y" * 1_000_000))
        with pytest.raises(NoSuchBytes):
            await store.write(BLOB + "2", broken())
        database = mongo_janitor[migrated_database]
        assert database["answers.chunks"].count_documents({"files_id": BLOB + "2"}) == PARTS_A_WRITE
        await store.delete(BLOB)
        await store.delete(BLOB + "2")
        assert database["answers.chunks"].count_documents({}) == 0
        assert database["answers.files"].count_documents({}) == 0


async def test_a_file_that_is_removed_while_it_is_read_is_gone_and_few_parts_of_it_are_held(
    mongo_uri: str, migrated_database: str
) -> None:
    async with open_client(mongo_uri) as client:
        await bind_documents(client[migrated_database])
        store = GridFsBlobs()
        await store.write(BLOB, pieces(b"y" * (20 * PART_BYTES)))
        parts = store.open_stream(BLOB)
        await anext(parts)
        await store.delete(BLOB)
        for _ in range(PARTS_A_READ - 1):
            await anext(parts)
        with pytest.raises(NotFoundError):
            await anext(parts)


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    store = ObjectBlobs(open_object_store(f"file://{tmp_path}/answers"))
    (tmp_path / "answers" / "in-the-way").write_text("a file where a folder should be")
    with pytest.raises(UnavailableError):
        await store.write("in-the-way/blob", pieces(b"one"))


@pytest.mark.parametrize("url", ["", "answers", "http://host/x", "ftp://host/x", "s3://", "az://account/container"])
def test_what_is_no_address_of_a_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"store|URL|Azure|Account|account|Unable"):
        open_object_store(url)


@pytest.fixture
def records(in_mongo: bool) -> BlobRecords:
    return MongoBlobRecords() if in_mongo else MemoryBlobRecords()


def record(number: int, after: timedelta = timedelta(0)) -> BlobRecord:
    return BlobRecord(f"blob-{number}", f"execution-{number}", number, NOW + after)


async def test_records_come_due_oldest_first(records: BlobRecords) -> None:
    for number, seconds in enumerate([3, 1, 2, 9]):
        await records.insert(record(number, seconds * SECOND))
    assert await records.find_due(NOW, 10) == []
    assert await records.find_due(NOW + 3 * SECOND, 10) == [
        record(1, SECOND),
        record(2, 2 * SECOND),
        record(0, 3 * SECOND),
    ]
    assert await records.find_due(NOW + 9 * SECOND, 2) == [record(1, SECOND), record(2, 2 * SECOND)]


async def test_a_postponed_record_comes_due_later_and_a_removed_one_never(records: BlobRecords) -> None:
    for number in range(3):
        await records.insert(record(number))
    await records.remove(["blob-1", "blob-9"])
    await records.postpone({"blob-0": NOW + 5 * SECOND, "blob-1": NOW})
    assert await records.find_due(NOW, 10) == [record(2)]
    assert await records.find_due(NOW + 5 * SECOND, 10) == [record(2), record(0, 5 * SECOND)]
