"""Large answers over the wire: uploaded under a lease, named by the report, downloaded as the target sent them."""

from __future__ import annotations

import gzip
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import zstandard
from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.v1 import execution_pb2
from punctual.v1.execution_service_pb2 import DownloadResponseRequest, GetExecutionRequest
from punctual.v1.job_service_pb2 import RunJobRequest
from pymongo import MongoClient

from tests.support.served_scheduler import ORG, ServedScheduler, refusal, served_scheduler

NOISE = random.Random(5).randbytes(700_000)
CHUNK = 256 * 1024


@pytest.fixture(params=["", "folder"])
def blob_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/answers" if request.param else ""


@pytest.fixture
async def served(mongo_uri: str, empty_database: str, blob_store_url: str) -> AsyncIterator[ServedScheduler]:
    async with served_scheduler(mongo_uri, empty_database, blob_store_url=blob_store_url) as api:
        yield api


async def begun(api: ServedScheduler) -> pb.AttemptGrant:
    job = await api.create()
    execution = await api.jobs.RunJob(RunJobRequest(job_id=job.job_id), metadata=ORG)
    return (await api.begin(execution.execution_id)).grants[0]


def messages(grant: pb.AttemptGrant, data: bytes, encoding: str = "", *, token: int = 0) -> Iterator[Any]:
    lease = pb.AttemptLease(execution_id=grant.execution_id, fencing_token=token or grant.fencing_token)
    yield pb.UploadResponseRequest(lease=lease, encoding=encoding)
    for start in range(0, len(data), CHUNK):
        yield pb.UploadResponseRequest(chunk=data[start : start + CHUNK])


async def stored(api: ServedScheduler, data: bytes, encoding: str = "", *, kept: bytes = b"") -> pb.AttemptGrant:
    """Run an execution whose answer is uploaded as `data`; `kept` is what that decompresses to."""
    kept = kept or data
    grant = await begun(api)
    upload = await api.attempts.UploadResponse(messages(grant, data, encoding))
    assert upload.size_bytes == len(data)
    answer = pb.ReportedResponse(
        encoding=encoding,
        stored_size_bytes=len(kept),
        total_size_bytes=len(kept),
        sha256=hashlib.sha256(kept).digest(),
        blob_id=upload.blob_id,
        head=kept[:4096],
    )
    await api.report(grant, response=answer)
    return grant


async def download(api: ServedScheduler, execution_id: str, *, raw: bool = False) -> tuple[bytes, str]:
    call = api.executions.DownloadResponse(DownloadResponseRequest(execution_id=execution_id, raw=raw), metadata=ORG)
    parts = [part async for part in call]
    assert not parts[0].chunk
    return b"".join(part.chunk for part in parts), parts[0].storage_encoding


async def test_an_uploaded_answer_is_downloaded_byte_for_byte(served: ServedScheduler) -> None:
    grant = await stored(served, NOISE)
    assert await download(served, grant.execution_id) == (NOISE, "")
    execution = await served.executions.GetExecution(GetExecutionRequest(execution_id=grant.execution_id), metadata=ORG)
    response = execution.response
    assert execution.state == execution_pb2.Execution.STATE_SUCCEEDED
    assert (response.body, response.complete) == (NOISE[:4096], False)
    assert (response.stored_size_bytes, response.sha256) == (len(NOISE), hashlib.sha256(NOISE).hexdigest())


async def test_compressed_bytes_are_decompressed_on_the_way_unless_asked_raw(api: ServedScheduler) -> None:
    text = b"".join(b"line %d of the answer\n" % number for number in range(50_000))
    for encoding, packed in (("zstd", zstandard.compress(text)), ("gzip", gzip.compress(text, 1))):
        grant = await stored(api, packed, encoding, kept=text)
        assert await download(api, grant.execution_id) == (text, "")
        assert await download(api, grant.execution_id, raw=True) == (packed, encoding)


async def test_a_stale_token_is_refused_and_leaves_nothing(
    api: ServedScheduler, empty_database: str, mongo_janitor: MongoClient[dict[str, Any]]
) -> None:
    grant = await begun(api)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.attempts.UploadResponse(messages(grant, NOISE, token=grant.fencing_token + 1))
    assert refusal(raised.value).reason == "LEASE_LOST"
    database = mongo_janitor[empty_database]
    assert [database[name].count_documents({}) for name in ("blobs", "answers.files", "answers.chunks")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ([], "lease"),
        ([pb.UploadResponseRequest(chunk=b"x")], "lease"),
        ([pb.UploadResponseRequest(lease=pb.AttemptLease(execution_id="x"), encoding="br")], "encoding"),
    ],
)
async def test_a_malformed_upload_is_refused(api: ServedScheduler, wrong: list[Any], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.attempts.UploadResponse(iter(wrong))
    assert refusal(raised.value).fields == (field,)


async def test_a_large_chunk_is_refused(api: ServedScheduler) -> None:
    grant = await begun(api)
    upload = [*messages(grant, b""), pb.UploadResponseRequest(chunk=b"x" * (CHUNK + 1))]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.attempts.UploadResponse(iter(upload))
    assert refusal(raised.value).fields == ("chunk",)


async def test_an_upload_that_breaks_off_is_swept(
    api: ServedScheduler, empty_database: str, mongo_janitor: MongoClient[dict[str, Any]]
) -> None:
    grant = await begun(api)
    call = api.attempts.UploadResponse()
    for message in messages(grant, NOISE * 2):
        await call.write(message)
    database = mongo_janitor[empty_database]
    call.cancel()
    await api.report(grant)
    await _age_all(database)
    await api.scheduler.blob_sweep.run_once()
    assert [database[name].count_documents({}) for name in ("blobs", "answers.files", "answers.chunks")] == [0, 0, 0]


async def test_blobs_go_with_their_executions(
    api: ServedScheduler, empty_database: str, mongo_janitor: MongoClient[dict[str, Any]]
) -> None:
    grants = [await stored(api, NOISE) for _ in range(3)]
    database = mongo_janitor[empty_database]
    await _age_all(database)
    assert await api.scheduler.blob_sweep.run_once() == 3
    assert database["answers.files"].count_documents({}) == 3
    # As the TTL index does some day.
    database["executions"].delete_one({"_id": grants[0].execution_id})
    await _age_all(database)
    await api.scheduler.blob_sweep.run_once()
    assert database["answers.files"].count_documents({}) == database["blobs"].count_documents({}) == 2
    assert (await download(api, grants[1].execution_id))[0] == NOISE


async def test_a_blob_counts_as_stored_and_a_full_org_gets_no_other(mongo_uri: str, empty_database: str) -> None:
    async with served_scheduler(mongo_uri, empty_database, org_max_stored_bytes=500_000) as api:
        usage = api.scheduler.safeguards.usage
        await stored(api, NOISE)
        await usage.flush()
        assert await usage.stored_bytes("acme") == len(NOISE)
        grant = await begun(api)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await api.attempts.UploadResponse(messages(grant, NOISE))
        assert refusal(raised.value).reason == "STORED_BYTES_QUOTA_EXCEEDED"


async def _age_all(database: Any) -> None:
    """Let the checks of all blobs come due."""
    database["blobs"].update_many({}, [{"$set": {"check_time": {"$subtract": ["$$NOW", 1000]}}}])
