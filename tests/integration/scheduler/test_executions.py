"""Cancelling, repeating and downloading over the wire, on executions that went through the real dispatch path."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import zstandard
from google.protobuf.field_mask_pb2 import FieldMask
from punctual.internal.v1 import attempt_service_pb2
from punctual.v1 import execution_pb2, job_pb2
from punctual.v1.execution_service_pb2 import (
    CancelExecutionRequest,
    DownloadResponseRequest,
    DownloadResponseResponse,
    GetExecutionRequest,
    ListExecutionsRequest,
    RetryExecutionRequest,
)
from punctual.v1.job_service_pb2 import (
    DeleteJobRequest,
    GetJobRequest,
    PauseJobRequest,
    RunJobRequest,
    UpdateJobRequest,
)

from libs.common.testing.fake_clock import FakeClock
from tests.support.served_scheduler import ORG, ServedScheduler, cron, instant, once_at, refusal, served_scheduler

NOON = datetime(2040, 1, 2, 12, 0, tzinfo=UTC)
Execution = execution_pb2.Execution
Answer = attempt_service_pb2.ReportedResponse


@pytest.fixture
async def timed(mongo_uri: str, empty_database: str):
    """A scheduler whose clock stands at noon until the test moves it, and the clock."""
    clock = FakeClock(NOON)
    async with served_scheduler(mongo_uri, empty_database, clock=clock) as served:
        yield served, clock


async def run(api: ServedScheduler, **changes: object) -> Execution:
    """Return a manual execution of a new job."""
    job = await api.create(**changes)
    return await api.jobs.RunJob(RunJobRequest(job_id=job.job_id), metadata=ORG)


async def begun(api: ServedScheduler, execution: Execution) -> attempt_service_pb2.AttemptGrant:
    return (await api.begin(execution.execution_id)).grants[0]


async def read(api: ServedScheduler, execution_id: str) -> Execution:
    return await api.executions.GetExecution(GetExecutionRequest(execution_id=execution_id), metadata=ORG)


async def cancel(api: ServedScheduler, execution_id: str, note: str = "") -> Execution:
    request = CancelExecutionRequest(execution_id=execution_id, note=note)
    return await api.executions.CancelExecution(request, metadata=ORG)


async def retry(api: ServedScheduler, execution_id: str, key: str = "") -> Execution:
    request = RetryExecutionRequest(execution_id=execution_id, idempotency_key=key)
    return await api.executions.RetryExecution(request, metadata=ORG)


async def extend(api: ServedScheduler, grant: attempt_service_pb2.AttemptGrant) -> int:
    lease = attempt_service_pb2.AttemptLease(execution_id=grant.execution_id, fencing_token=grant.fencing_token)
    answer = await api.attempts.ExtendLeases(
        attempt_service_pb2.ExtendLeasesRequest(executor_id="executor-1", leases=[lease])
    )
    return answer.extensions[0].verdict


async def reason_of(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call  # type: ignore[misc]
    return refusal(raised.value).reason


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_of_two_leases_of_one_execution_the_present_one_is_renewed(
    api: ServedScheduler, order: tuple[int, int]
) -> None:
    # An executor that lost a lease and was granted the execution again holds both until it hears of the loss.
    execution = await run(api)
    first = await begun(api, execution)
    await api.report(first, result=attempt_service_pb2.AttemptReport.RESULT_RELEASED)
    second = await begun(api, execution)
    leases = [
        attempt_service_pb2.AttemptLease(execution_id=grant.execution_id, fencing_token=grant.fencing_token)
        for grant in (first, second)
    ]
    answer = await api.attempts.ExtendLeases(
        attempt_service_pb2.ExtendLeasesRequest(executor_id="executor-1", leases=[leases[place] for place in order])
    )
    verdicts = {extension.lease.fencing_token: extension.verdict for extension in answer.extensions}
    extension = attempt_service_pb2.LeaseExtension
    assert verdicts == {1: extension.VERDICT_LOST, 2: extension.VERDICT_EXTENDED}


async def test_a_waiting_execution_is_cancelled_at_once(api: ServedScheduler) -> None:
    execution = await run(api)
    cancelled = await cancel(api, execution.execution_id)
    assert (cancelled.state, cancelled.state_reason) == (Execution.STATE_CANCELLED, "CANCELLED_BY_CALLER")
    assert cancelled.HasField("end_time")
    assert [item.reason for item in (await api.begin(execution.execution_id)).refusals] == ["FINAL"]
    assert await cancel(api, execution.execution_id) == cancelled


async def test_a_running_executions_executor_hears_of_it(api: ServedScheduler) -> None:
    grant = await begun(api, await run(api))
    assert await extend(api, grant) == attempt_service_pb2.LeaseExtension.VERDICT_EXTENDED
    assert (await cancel(api, grant.execution_id)).state == Execution.STATE_RUNNING
    assert await extend(api, grant) == attempt_service_pb2.LeaseExtension.VERDICT_CANCEL
    await api.report(grant, result=attempt_service_pb2.AttemptReport.RESULT_CANCELLED, status_code=0, response=None)
    ended = await read(api, grant.execution_id)
    assert (ended.state, ended.state_reason) == (Execution.STATE_CANCELLED, "CANCELLED_BY_CALLER")


async def test_an_answer_that_came_before_the_cancellation_was_heard_counts(api: ServedScheduler) -> None:
    grant = await begun(api, await run(api))
    await cancel(api, grant.execution_id)
    await api.report(grant)
    assert (await read(api, grant.execution_id)).state == Execution.STATE_SUCCEEDED


async def test_a_cancelled_execution_is_not_retried(api: ServedScheduler) -> None:
    grant = await begun(api, await run(api))
    await cancel(api, grant.execution_id)
    await api.report(grant, status_code=503)
    assert (await read(api, grant.execution_id)).state == Execution.STATE_CANCELLED


async def test_a_waiting_retry_is_cancelled_at_once(api: ServedScheduler) -> None:
    grant = await begun(api, await run(api))
    await api.report(grant, status_code=503)
    assert (await read(api, grant.execution_id)).state == Execution.STATE_READY
    assert (await cancel(api, grant.execution_id)).state == Execution.STATE_CANCELLED


async def test_cancelling_and_beginning_at_once_agree(api: ServedScheduler) -> None:
    for _ in range(10):
        execution = await run(api)
        answer, batch = await asyncio.gather(cancel(api, execution.execution_id), api.begin(execution.execution_id))
        if batch.grants:
            assert answer.state == Execution.STATE_RUNNING
            assert await extend(api, batch.grants[0]) == attempt_service_pb2.LeaseExtension.VERDICT_CANCEL
        else:
            assert answer.state == Execution.STATE_CANCELLED


async def test_a_one_time_job_is_complete_when_its_execution_is_cancelled(timed) -> None:
    api, clock = timed
    job = await api.create(schedule=once_at(NOON + timedelta(minutes=1)))
    await clock.advance(60)
    (due,) = await api.tick()
    await cancel(api, due)
    shown = await api.jobs.GetJob(GetJobRequest(job_id=job.job_id), metadata=ORG)
    assert shown.state == job_pb2.Job.STATE_COMPLETED


async def test_the_cancelled_one_makes_room_for_the_one_behind_it(timed) -> None:
    api, clock = timed
    await api.create(schedule=cron("* * * * *"), overlap_policy=job_pb2.OVERLAP_POLICY_QUEUE_ONE)
    await clock.advance(60)
    grant = (await api.begin(*await api.tick())).grants[0]
    await api.report(grant, status_code=503)
    await clock.advance(60)
    (_, queued) = sorted(await api.tick())
    assert [item.reason for item in (await api.begin(queued)).refusals] == ["QUEUED"]
    await cancel(api, grant.execution_id)
    assert [item.execution_id for item in (await api.begin(*await api.tick())).grants] == [queued]


async def test_a_final_execution_can_be_repeated_and_says_of_what(timed) -> None:
    api, clock = timed
    target = job_pb2.Target(url="https://api.example.com", prompt="Hi.")
    target.body.template = '{"day": "{{fire_date}}", "prompt": "{{prompt}}"}'
    job = await api.create(schedule=cron("0 0 * * *"), target=target)
    await clock.advance(timedelta(hours=12))
    first = (await api.begin(*await api.tick())).grants[0]
    await api.report(first, status_code=404)
    await clock.advance(timedelta(days=3))
    await api.jobs.PauseJob(PauseJobRequest(job_id=job.job_id), metadata=ORG)
    repeated = await retry(api, first.execution_id)
    assert (repeated.cause, repeated.retried_execution_id) == (Execution.CAUSE_RETRY_REQUEST, first.execution_id)
    assert instant(repeated.fire_time) == clock.now()
    grant = await begun(api, repeated)
    # It repeats the fire of the 3rd, and so its prompt speaks of that day.
    assert b'"day":"2040-01-03"' in grant.request.body
    await api.report(grant)
    twice = await retry(api, repeated.execution_id)
    assert b'"day":"2040-01-03"' in (await begun(api, twice)).request.body


async def test_one_key_makes_one_repetition_however_many_ask_at_once(api: ServedScheduler) -> None:
    execution = await run(api)
    await cancel(api, execution.execution_id)
    answers = await asyncio.gather(*(retry(api, execution.execution_id, "again") for _ in range(20)))
    assert len({answer.execution_id for answer in answers}) == 1
    assert (await retry(api, execution.execution_id)).execution_id != answers[0].execution_id
    listed = await api.executions.ListExecutions(
        ListExecutionsRequest(job_id=execution.job_id, causes=[Execution.CAUSE_RETRY_REQUEST]), metadata=ORG
    )
    assert len(listed.executions) == 2


async def test_what_goes_on_or_belongs_to_a_deleted_job_cannot_be_repeated(api: ServedScheduler) -> None:
    execution = await run(api)
    assert await reason_of(retry(api, execution.execution_id)) == "EXECUTION_NOT_FINAL"
    await cancel(api, execution.execution_id)
    await api.jobs.DeleteJob(DeleteJobRequest(job_id=execution.job_id), metadata=ORG)
    assert await reason_of(retry(api, execution.execution_id)) == "WRONG_JOB_STATE"


async def test_one_key_makes_one_manual_execution_also_when_the_job_was_paused_since(api: ServedScheduler) -> None:
    job = await api.create()
    request = RunJobRequest(job_id=job.job_id, idempotency_key="now")
    answers = await asyncio.gather(*(api.jobs.RunJob(request, metadata=ORG) for _ in range(20)))
    await api.jobs.PauseJob(PauseJobRequest(job_id=job.job_id), metadata=ORG)
    again = await api.jobs.RunJob(request, metadata=ORG)
    assert {answer.execution_id for answer in [*answers, again]} == {again.execution_id}
    request.idempotency_key = "other"
    assert await reason_of(api.jobs.RunJob(request, metadata=ORG)) == "WRONG_JOB_STATE"
    request.allow_inactive = True
    assert (await api.jobs.RunJob(request, metadata=ORG)).execution_id != again.execution_id


async def download(api: ServedScheduler, execution_id: str, *, raw: bool = False) -> list[DownloadResponseResponse]:
    request = DownloadResponseRequest(execution_id=execution_id, raw=raw)
    return [part async for part in api.executions.DownloadResponse(request, metadata=ORG)]


async def answered(api: ServedScheduler, answer: Answer) -> str:
    grant = await begun(api, await run(api))
    await api.report(grant, response=answer)
    return grant.execution_id


BODY = b"".join(hashlib.sha256(str(number).encode()).hexdigest().encode() for number in range(5000))


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ("", BODY),
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("zstd", zstandard.ZstdCompressor().compress(BODY)),
        ("zstd", zstandard.ZstdCompressor().compress(BODY[:999]) + zstandard.ZstdCompressor().compress(BODY[999:])),
        ("", b""),
    ],
    ids=["plain", "gzip", "zstd", "zstd-in-two-frames", "empty"],
)
async def test_an_answer_comes_as_the_target_sent_it_or_as_it_is_stored(
    api: ServedScheduler, encoding: str, stored: bytes
) -> None:
    whole = BODY if stored else b""
    answer = Answer(
        body=stored,
        encoding=encoding,
        stored_size_bytes=len(whole),
        total_size_bytes=len(whole),
        content_type="text/plain",
        sha256=hashlib.sha256(whole).digest(),
    )
    execution_id = await answered(api, answer)
    first, *parts = await download(api, execution_id)
    assert (first.response.status_code, first.response.content_type) == (200, "text/plain")
    assert (first.response.body, first.storage_encoding) == (b"", "")
    assert b"".join(part.chunk for part in parts) == whole
    assert all(len(part.chunk) == 64 * 1024 for part in parts[:-1])
    first, *parts = await download(api, execution_id, raw=True)
    assert (first.storage_encoding, b"".join(part.chunk for part in parts)) == (encoding, stored)


async def test_what_has_no_answer_or_keeps_it_elsewhere_cannot_be_downloaded(api: ServedScheduler) -> None:
    execution = await run(api)
    assert await reason_of(download(api, execution.execution_id)) == "RESPONSE_NOT_AVAILABLE"
    elsewhere = await answered(api, Answer(blob_id="blob-1", stored_size_bytes=10, head=b"abc"))
    assert await reason_of(download(api, elsewhere)) == "RESPONSE_NOT_AVAILABLE"


async def test_a_damaged_answer_does_not_pass_as_a_whole_one(api: ServedScheduler) -> None:
    short = await answered(api, Answer(body=b"abc", stored_size_bytes=10))
    assert await reason_of(download(api, short)) == "ANSWER_CORRUPT"
    nonsense = await answered(api, Answer(body=b"abc", encoding="zstd", stored_size_bytes=10))
    assert await reason_of(download(api, nonsense)) == "ANSWER_CORRUPT"


async def test_a_waiting_execution_shows_the_prompt_that_it_will_send(api: ServedScheduler) -> None:
    execution = await run(api)
    changed = job_pb2.Job(job_id=execution.job_id, target=job_pb2.Target(prompt="New."))
    request = UpdateJobRequest(job=changed, update_mask=FieldMask(paths=["target.prompt"]))
    await api.jobs.UpdateJob(request, metadata=ORG)
    assert (await read(api, execution.execution_id)).prompt == "New."
