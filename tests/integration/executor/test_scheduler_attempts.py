"""The gRPC adapter against a real server: nothing of a grant or a report is lost on the wire."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from libs.common.clock import SystemClock
from libs.common.clock_offset import OffsetEstimator
from libs.common.errors import UnavailableError
from libs.common.rpc.client import open_channel
from services.executor.adapters.http.answer_packing import FileSource
from services.executor.adapters.proto_time import instant_of
from services.executor.adapters.scheduler_attempts import SchedulerAttempts
from services.executor.adapters.scheduler_clock import EstimatedClock
from services.executor.domain.answer import RateLimitObservation
from services.executor.domain.attempt import Header, JsonPathEquals, JsonPathExists, Lease, MinSize
from services.executor.domain.report import Report, ReportedResponse, Result
from services.executor.usecases.ports import ExtensionVerdict, PollMode, ReportVerdict
from tests.integration.executor.fake_scheduler import FakeScheduler, grant_message, serving

DUE = datetime(2026, 1, 1, 9, 0, 0, 1, tzinfo=UTC)


@pytest.fixture
def scheduler() -> FakeScheduler:
    return FakeScheduler(ahead=timedelta(seconds=3))


@pytest.fixture
def estimator() -> OffsetEstimator:
    return OffsetEstimator()


@pytest.fixture
async def attempts(scheduler: FakeScheduler, estimator: OffsetEstimator) -> AsyncIterator[SchedulerAttempts]:
    async with serving(scheduler) as address:
        channel = open_channel(address)
        yield SchedulerAttempts(channel, "executor-1", SystemClock(), estimator)
        await channel.close()


async def test_a_grant_arrives_whole(attempts: SchedulerAttempts, scheduler: FakeScheduler) -> None:
    scheduler.ready["e1"] = grant_message("e1", "http://target/", DUE, token=5)
    batch = await attempts.begin("request-1", ["e1", "e2"])
    [grant], [refusal] = batch.grants, batch.refusals
    assert (grant.lease, grant.attempt_number, grant.due_time) == (Lease("e1", 5), 2, DUE)
    assert grant.request.headers == (Header("X-Api-Key", "sk-0123456789", sensitive=True),)
    assert grant.request.response_policy.checks == (MinSize(1), JsonPathExists("$.a"), JsonPathEquals("$.a", "1"))
    assert grant.request.response_policy.success_codes == {200, 201}
    assert grant.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert (refusal.execution_id, refusal.reason, refusal.retry_time) == ("e2", "FINAL", None)
    assert batch.lease_seconds == 30
    assert (scheduler.requests[0].executor_id, scheduler.requests[0].request_id) == ("executor-1", "request-1")
    assert "sk-0123456789" not in repr(grant)


async def test_a_poll_says_its_mode(attempts: SchedulerAttempts, scheduler: FakeScheduler) -> None:
    assert (await attempts.poll("r", 7, PollMode.ALL, repetition=True)).more
    request = scheduler.requests[0]
    assert (request.max_attempts, request.mode, request.repetition) == (7, 2, True)


async def test_verdicts_come_in_order(attempts: SchedulerAttempts) -> None:
    answer = await attempts.extend([Lease(f"e{n}", 1) for n in range(3)])
    assert answer.verdicts == (ExtensionVerdict.EXTENDED, ExtensionVerdict.LOST, ExtensionVerdict.CANCEL)
    assert answer.lease_seconds == 12.5
    reports = [Report(Lease("a", 1), Result.RELEASED), Report(Lease("b", 99), Result.RELEASED)]
    assert await attempts.report(reports) == [ReportVerdict.ACCEPTED, ReportVerdict.STALE]


async def test_a_report_arrives_whole(attempts: SchedulerAttempts, scheduler: FakeScheduler) -> None:
    response = ReportedResponse(
        headers=(Header("Set-Cookie", "x", sensitive=True),),
        content_type="text/plain",
        body=b"\xff\x00",
        encoding="",
        stored_size_bytes=2,
        total_size_bytes=-1,
        truncated=True,
        sha256=b"s",
        warning="cut",
    )
    report = Report(
        Lease("e1", 5),
        Result.ANSWERED,
        DUE,
        DUE + timedelta(seconds=1),
        status_code=429,
        error_reason="R",
        error_message="m",
        response=response,
        retry_after=1.5,
        rate_limit=RateLimitObservation("openai", 0, -1, DUE),
        redirect_count=1,
        stop_requested=True,
        trace_id="t",
    )
    await attempts.report([report])
    told = scheduler.reports["e1"]
    assert (told.lease.fencing_token, told.result, told.status_code) == (5, 1, 429)
    assert instant_of(told.start_time) == DUE
    assert (told.retry_after.seconds, told.retry_after.nanos) == (1, 500_000_000)
    assert (told.rate_limit.family, told.rate_limit.remaining_requests) == ("openai", 0)
    assert instant_of(told.rate_limit.reset_time) == DUE
    assert (told.response.body, told.response.total_size_bytes, told.response.truncated) == (b"\xff\x00", -1, True)
    assert told.response.headers[0].sensitive
    assert (told.redirect_count, told.stop_requested, told.trace_id) == (1, True, "t")


async def test_what_was_not_told_stays_unset(attempts: SchedulerAttempts, scheduler: FakeScheduler) -> None:
    await attempts.report([Report(Lease("e1", 5), Result.RELEASED)])
    told = scheduler.reports["e1"]
    for name in ("start_time", "end_time", "response", "defer_time", "retry_after", "rate_limit"):
        assert not told.HasField(name)  # type: ignore[arg-type]


async def test_an_upload_goes_in_chunks_under_its_lease(attempts: SchedulerAttempts, scheduler: FakeScheduler) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"z" * 1_000_000)
        source = FileSource(file)
        assert await attempts.upload(Lease("e1", 5), "zstd", source) == "blob-1"
        assert await attempts.upload(Lease("e1", 5), "zstd", source) == "blob-1"
    first, *chunks = scheduler.requests[:5]
    assert (first.lease.execution_id, first.lease.fencing_token, first.encoding) == ("e1", 5, "zstd")
    assert [len(part.chunk) for part in chunks] == [262_144, 262_144, 262_144, 213_568]
    assert scheduler.uploaded == b"z" * 2_000_000


async def test_every_answer_is_a_look_at_the_schedulers_clock(
    attempts: SchedulerAttempts, estimator: OffsetEstimator
) -> None:
    clock = EstimatedClock(SystemClock(), estimator)
    before = datetime.now(UTC)
    assert abs(clock.now() - before) < timedelta(seconds=1)
    await attempts.extend([])
    assert timedelta(seconds=2.9) < clock.now() - datetime.now(UTC) < timedelta(seconds=3.1)


async def test_a_scheduler_that_is_away_is_unavailable() -> None:
    channel = open_channel("127.0.0.1:1")
    attempts = SchedulerAttempts(channel, "executor-1", SystemClock(), OffsetEstimator())
    with pytest.raises(UnavailableError):
        await attempts.begin("r", ["e1"])
    with pytest.raises(UnavailableError), tempfile.TemporaryFile() as file:
        await attempts.upload(Lease("e1", 1), "", FileSource(file))
    await channel.close()
