"""The client over a real socket: what it sends, what it repeats, what it raises."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from punctual.v1 import job_service_pb2 as pb
from punctual.v1.audit_pb2 import AuditEvent
from punctual.v1.audit_service_pb2 import ListAuditEventsResponse
from punctual.v1.job_pb2 import Job

from libs.client import BearerToken, PunctualClient, RetryPolicy, daily, request_id_of
from libs.client import new_job as new_job_of
from libs.client.repeatable import PUBLIC_SERVICES
from libs.common.errors import (
    AbortedError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.unit.client.fake_server import FakePunctual

AWAY = UnavailableError("NO_PRIMARY", "no primary")
JOB = new_job_of("n", prompt="p", url="https://example.com", schedule=daily("09:00"))


async def test_idempotent_call_is_repeated_under_one_request_id(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("GetJob", AWAY, AWAY, Job(job_id="j"))
    assert (await client.jobs.get("j")).job_id == "j"
    assert len(fake.seen) == 3
    assert len({call.metadata["x-request-id"] for call in fake.seen}) == 1


async def test_a_call_belongs_to_the_callers_trace(fake: FakePunctual, client: PunctualClient) -> None:
    span = NonRecordingSpan(SpanContext(0xA, 0xB, is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(span):
        await client.jobs.get("j")
    await client.jobs.get("j")
    traced, untraced = (call.metadata for call in fake.seen)
    assert traced["traceparent"] == f"00-{0xA:032x}-{0xB:016x}-01"
    assert "traceparent" not in untraced


async def test_create_is_repeated_with_the_key_of_its_first_try(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("CreateJob", AWAY)
    await client.jobs.create(JOB)
    first, second = fake.requests("CreateJob")
    assert first.idempotency_key
    assert first == second
    await client.jobs.create(JOB, idempotency_key="mine")
    assert fake.requests("CreateJob")[-1].idempotency_key == "mine"


async def test_fresh_keys_differ(fake: FakePunctual, client: PunctualClient) -> None:
    await client.jobs.run("j")
    await client.jobs.run("j")
    await client.executions.retry("e")
    await client.executions.retry("e")
    keys = [call.request.idempotency_key for call in fake.seen]
    assert len(set(keys)) == 4


async def test_update_is_never_repeated(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("UpdateJob", AWAY)
    with pytest.raises(UnavailableError, match="no primary"):
        await client.jobs.update(Job(job_id="j", name="new"), update_mask=["name"])
    assert len(fake.seen) == 1


async def test_mask_is_sent_only_where_given(fake: FakePunctual, client: PunctualClient) -> None:
    await client.jobs.update(Job(job_id="j", name="new"))
    await client.jobs.update(Job(job_id="j", name="new"), update_mask=["name", "labels"])
    first, second = fake.requests("UpdateJob")
    assert not first.HasField("update_mask")
    assert list(second.update_mask.paths) == ["name", "labels"]


async def test_rate_limit_is_waited_out_within_the_deadline(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("CreateJob", ResourceExhaustedError("CREATE_RATE", "slow down", retry_after_seconds=0.05))
    began = time.monotonic()
    await client.jobs.create(JOB)
    assert time.monotonic() - began >= 0.05
    fake.script("CreateJob", ResourceExhaustedError("CREATE_RATE", "slow down", retry_after_seconds=60))
    with pytest.raises(ResourceExhaustedError) as raised:
        await client.jobs.create(JOB)
    assert raised.value.retry_after_seconds == 60


async def test_deadline_spans_all_tries(fake: FakePunctual) -> None:
    policy = RetryPolicy(initial_backoff=0.2, max_backoff=0.2)
    fake.script("GetJob", *[AWAY] * 100)
    async with PunctualClient(fake.address, retry_policy=policy, deadline_seconds=1) as client:
        with pytest.raises(UnavailableError, match="no primary"):
            await client.jobs.get("j")
    assert 2 <= len(fake.seen) <= 11
    assert fake.seen[0].deadline <= 1.1
    assert fake.seen[-1].deadline < fake.seen[0].deadline


async def test_deadline_is_ten_seconds_unless_overridden(fake: FakePunctual) -> None:
    async with PunctualClient(fake.address) as client:
        await client.jobs.get("j")
        await client.with_deadline(60).jobs.get("j")
    assert [round(call.deadline) for call in fake.seen] == [10, 60]


async def test_absent_server_is_unavailable(unused_tcp_port: int) -> None:
    async with PunctualClient(f"127.0.0.1:{unused_tcp_port}", deadline_seconds=0.1) as client:
        with pytest.raises(UnavailableError) as raised:
            await client.jobs.get("j")
    assert len(request_id_of(raised.value)) == 26


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgumentError([FieldViolation("job.schedule.time_zone", "UNKNOWN_ZONE", "no such zone")]),
        NotFoundError("job", "j"),
        AbortedError("ETAG_MISMATCH", "changed since", metadata={"etag": "3"}),
    ],
)
async def test_errors_arrive_with_reason_fields_and_request_id(
    fake: FakePunctual, client: PunctualClient, error: InvalidArgumentError
) -> None:
    fake.script("GetJob", error)
    with pytest.raises(type(error)) as raised:
        await client.jobs.get("j")
    assert (raised.value.code, raised.value.reason, raised.value.message) == (error.code, error.reason, error.message)
    assert getattr(raised.value, "violations", None) == getattr(error, "violations", None)
    assert request_id_of(raised.value) == fake.seen[0].metadata["x-request-id"]
    assert len(fake.seen) == 1


async def test_credentials_and_org_are_sent(fake: FakePunctual) -> None:
    async with PunctualClient(fake.address, credentials=BearerToken("t0ken"), org="acme") as client:
        await client.org.get()
    assert fake.seen[0].metadata["authorization"] == "Bearer t0ken"
    assert fake.seen[0].metadata["x-punctual-org"] == "acme"


async def test_bad_token_fails_before_a_call(fake: FakePunctual) -> None:
    async with PunctualClient(fake.address, credentials=BearerToken("")) as client:
        with pytest.raises(UnauthenticatedError) as raised:
            await client.org.get()
    assert fake.seen == []
    assert request_id_of(raised.value) == ""


async def test_list_walks_all_pages_with_the_same_arguments(fake: FakePunctual, client: PunctualClient) -> None:
    page = pb.ListJobsResponse
    fake.script(
        "ListJobs",
        page(jobs=[Job(job_id="a"), Job(job_id="b")], next_page_token="2"),
        AWAY,
        page(next_page_token="3"),
        page(jobs=[Job(job_id="c")]),
    )
    after = datetime(2026, 1, 1, tzinfo=UTC)
    listed = client.jobs.list(project_id="p", states=[Job.STATE_PAUSED], labels={"a": "b"}, next_fire_after=after)
    assert [job.job_id async for job in listed] == ["a", "b", "c"]
    requests = fake.requests("ListJobs")
    assert [request.page_token for request in requests] == ["", "2", "2", "3"]
    for request in requests:
        request.page_token = ""
        assert request == requests[0]
    fake.script("ListJobs", page(jobs=[Job(job_id="d")]))
    assert [job.job_id async for job in listed] == ["d"], "a second walk begins anew"


async def test_page_can_be_continued_elsewhere(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("ListAuditEvents", ListAuditEventsResponse(events=[AuditEvent(event_id="e")], next_page_token="2"))
    pages = client.audit.list().pages()
    assert (await anext(pages)).next_page_token == "2"
    await pages.aclose()
    assert len(fake.seen) == 1, "the next page is fetched only when it is wanted"
    assert [event async for event in client.audit.list(page_token="2")] == []


async def test_repeated_page_token_ends_the_walk(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("ExplainJob", *[pb.ExplainJobResponse(next_page_token="same")] * 3)
    with pytest.raises(InternalError, match="page token"):
        _ = [fire async for fire in client.jobs.explain("j")]
    assert len(fake.seen) == 2


async def test_batches_are_cut_by_count_and_by_size(fake: FakePunctual, client: PunctualClient) -> None:
    small = pb.CreateJobRequest(job=JOB)
    large = pb.CreateJobRequest(job=JOB, idempotency_key="mine")
    large.job.target.prompt = "x" * 1_000_000
    for _ in range(3):
        fake.script("BatchCreateJobs", pb.BatchCreateJobsResponse(results=[pb.BatchCreateJobsResult(job=JOB)]))
    results = [result async for result in client.jobs.batch_create([small] * 1001 + [large] * 4)]
    batches = fake.requests("BatchCreateJobs")
    assert [len(batch.requests) for batch in batches] == [1000, 4, 1]
    assert len(results) == 3
    keys = [request.idempotency_key for batch in batches for request in batch.requests]
    assert len(set(keys)) == 1002
    assert keys[-4:] == ["mine"] * 4


async def test_bulk_goes_on_while_there_is_more_and_something_changes(
    fake: FakePunctual, client: PunctualClient
) -> None:
    answer = pb.BulkResumeJobsResponse
    fake.script("BulkResumeJobs", answer(changed_count=1000, more=True), answer(changed_count=7, unresumable_count=2))
    counts = [one.changed_count async for one in client.jobs.bulk_resume(project_id="p")]
    assert counts == [1000, 7]
    fake.script("BulkPauseJobs", *[pb.BulkPauseJobsResponse(more=True)] * 2)
    assert [one.more async for one in client.jobs.bulk_pause(labels={"a": "b"})] == [True]


async def test_every_rpc_has_a_method(fake: FakePunctual, client: PunctualClient) -> None:
    await client.jobs.create(JOB)
    _ = [one async for one in client.jobs.batch_create([pb.CreateJobRequest(job=JOB)])]
    await client.jobs.get("j")
    _ = [one async for one in client.jobs.list()]
    await client.jobs.update(JOB)
    await client.jobs.delete("j", etag="1")
    await client.jobs.pause("j", note="why", etag="1")
    await client.jobs.resume("j")
    _ = [one async for one in client.jobs.bulk_pause(project_id="p")]
    _ = [one async for one in client.jobs.bulk_resume(project_id="p")]
    await client.jobs.run("j", allow_inactive=True)
    await client.jobs.preview(daily("09:00"), count=3)
    _ = [one async for one in client.jobs.explain("j")]
    await client.executions.get("e")
    _ = [one async for one in client.executions.list(job_id="j")]
    await client.executions.cancel("e", note="why")
    await client.executions.retry("e")
    _ = [one async for one in client.executions.download("e")]
    await client.api_keys.create("k", scopes=["jobs.read"])
    _ = [one async for one in client.api_keys.list()]
    await client.api_keys.revoke("k")
    await client.signing_secrets.rotate()
    await client.signing_secrets.list()
    await client.signing_secrets.revoke("s")
    _ = [one async for one in client.target_hosts.list()]
    await client.target_hosts.reset("h:443")
    await client.target_hosts.set_limit("h:443", max_concurrent_requests=2)
    await client.org.get()
    await client.org.update(await client.org.get(), update_mask=["max_jobs"])
    _ = [one async for one in client.audit.list()]
    called = {call.method for call in fake.seen} | {"WatchExecutions"}  # test_streams.py
    assert called == {method.name for service in PUBLIC_SERVICES for method in service.methods}
