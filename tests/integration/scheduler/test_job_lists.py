"""ListJobs and the bulk calls over the wire: filters, pages that stay right while jobs change, and bounded work."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from punctual.v1 import job_pb2
from punctual.v1.job_service_pb2 import (
    BatchCreateJobsRequest,
    BulkPauseJobsRequest,
    BulkResumeJobsRequest,
    CreateJobRequest,
    DeleteJobRequest,
    ListJobsRequest,
    PauseJobRequest,
)

from libs.common.testing.fake_clock import FakeClock
from services.scheduler.usecases import bulk_change_state
from tests.support.served_scheduler import (
    ORG,
    ServedScheduler,
    a_job,
    a_timestamp,
    cron,
    instant,
    once_at,
    refusal,
    served_scheduler,
)

NOON = datetime(2040, 1, 2, 12, 0, tzinfo=UTC)


async def create_all(api: ServedScheduler, *jobs: job_pb2.Job) -> list[str]:
    requests = [CreateJobRequest(job=job) for job in jobs]
    answer = await api.jobs.BatchCreateJobs(BatchCreateJobsRequest(requests=requests), metadata=ORG)
    assert all(result.job.job_id for result in answer.results)
    return [result.job.job_id for result in answer.results]


async def names(api: ServedScheduler, **filters: Any) -> list[str]:
    answer = await api.jobs.ListJobs(ListJobsRequest(**filters), metadata=ORG)
    return sorted(job.name for job in answer.jobs)


async def pages(api: ServedScheduler, size: int, **filters: Any) -> list[list[job_pb2.Job]]:
    found, token = [], ""
    while True:
        request = ListJobsRequest(page_size=size, page_token=token, **filters)
        answer = await api.jobs.ListJobs(request, metadata=ORG)
        found.append(list(answer.jobs))
        token = answer.next_page_token
        if not token:
            return found


@pytest.fixture
async def timed(mongo_uri: str, empty_database: str):
    """A scheduler whose clock stands at noon until the test moves it, and the clock."""
    clock = FakeClock(NOON)
    async with served_scheduler(mongo_uri, empty_database, clock=clock) as served:
        yield served, clock


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["a-hourly", "b-daily", "b-paused", "c-other"]),
        ({"project_id": "search"}, ["c-other"]),
        ({"project_id": "nobody"}, []),
        ({"states": [job_pb2.Job.STATE_PAUSED]}, ["b-paused"]),
        ({"states": [job_pb2.Job.STATE_DELETED]}, ["z-deleted"]),
        (
            {"states": [job_pb2.Job.STATE_ACTIVE, job_pb2.Job.STATE_DELETED]},
            ["a-hourly", "b-daily", "c-other", "z-deleted"],
        ),
        ({"labels": {"team": "blue"}}, ["b-daily", "b-paused"]),
        ({"labels": {"team": "blue", "tier": "gold"}}, ["b-daily"]),
        ({"labels": {"team": "green"}}, []),
        ({"name_prefix": "b-"}, ["b-daily", "b-paused"]),
        ({"name_prefix": "B-"}, []),
        ({"name_prefix": "."}, []),
        ({"target_host": "api.example.com"}, ["a-hourly", "b-daily", "b-paused"]),
        ({"target_host": "OTHER.example.com"}, ["c-other"]),
        ({"next_fire_after": a_timestamp(NOON + timedelta(hours=2))}, ["b-daily"]),
        ({"next_fire_before": a_timestamp(NOON + timedelta(hours=2))}, ["a-hourly", "c-other"]),
        (
            {
                "next_fire_after": a_timestamp(NOON + timedelta(hours=1)),
                "next_fire_before": a_timestamp(NOON + timedelta(hours=1, seconds=1)),
            },
            ["a-hourly", "c-other"],
        ),
        ({"next_fire_before": a_timestamp(NOON + timedelta(days=9)), "states": [job_pb2.Job.STATE_PAUSED]}, []),
        ({"name_prefix": "b-", "labels": {"team": "blue"}, "states": [job_pb2.Job.STATE_ACTIVE]}, ["b-daily"]),
    ],
)
async def test_each_filter_restricts(timed, filters: Mapping[str, Any], expected: list[str]) -> None:
    api, _ = timed
    other = job_pb2.Target(url="https://other.example.com:8443/x", prompt="Hi.")
    ids = await create_all(
        api,
        a_job(name="a-hourly", schedule=cron("0 * * * *"), labels={"team": "red"}),
        a_job(name="b-daily", schedule=cron("0 0 * * *"), labels={"team": "blue", "tier": "gold"}),
        a_job(name="b-paused", schedule=cron("0 * * * *"), labels={"team": "blue"}),
        a_job(name="c-other", schedule=cron("0 * * * *"), project_id="search", target=other),
        a_job(name="z-deleted", labels={"team": "blue"}),
    )
    await api.jobs.PauseJob(PauseJobRequest(job_id=ids[2]), metadata=ORG)
    await api.jobs.DeleteJob(DeleteJobRequest(job_id=ids[4]), metadata=ORG)
    assert await names(api, **filters) == expected


async def test_pages_show_each_job_once_while_jobs_come_go_and_change(api: ServedScheduler) -> None:
    ids = await create_all(api, *(a_job(name=f"n{number:02}") for number in range(30)))
    seen: list[str] = []
    token = ""
    for page in range(6):
        request = ListJobsRequest(page_size=5, page_token=token)
        answer = await api.jobs.ListJobs(request, metadata=ORG)
        seen += [job.job_id for job in answer.jobs]
        token = answer.next_page_token
        # Between the pages: a new job, a deleted one that was seen, and a paused one.
        await create_all(api, a_job())
        await api.jobs.DeleteJob(DeleteJobRequest(job_id=seen[page]), metadata=ORG)
        await api.jobs.PauseJob(PauseJobRequest(job_id=seen[-1]), metadata=ORG)
    assert token == ""
    assert seen == sorted(ids, reverse=True)


async def test_the_last_page_has_no_token_even_when_it_is_full(api: ServedScheduler) -> None:
    await create_all(api, *(a_job() for _ in range(6)))
    assert [len(page) for page in await pages(api, 3)] == [3, 3]
    assert [len(page) for page in await pages(api, 3, labels={"no": "such"})] == [0]


async def test_a_bulk_pause_holds_what_matches_and_says_why(api: ServedScheduler) -> None:
    blue = await create_all(api, *(a_job(labels={"team": "blue"}) for _ in range(20)))
    await create_all(api, a_job(labels={"team": "red"}))
    request = BulkPauseJobsRequest(labels={"team": "blue"}, note="maintenance")
    first = await api.jobs.BulkPauseJobs(request, metadata=ORG)
    again = await api.jobs.BulkPauseJobs(request, metadata=ORG)
    assert (first.changed_count, first.more, again.changed_count) == (20, False, 0)
    paused = await api.jobs.ListJobs(ListJobsRequest(states=[job_pb2.Job.STATE_PAUSED]), metadata=ORG)
    assert {(job.job_id, job.state_note) for job in paused.jobs} == {(job_id, "maintenance") for job_id in blue}


async def test_a_bulk_resume_makes_active_what_has_a_further_fire(timed) -> None:
    api, clock = timed
    once = a_job(schedule=once_at(NOON + timedelta(minutes=1)), project_id="batch")
    await create_all(api, once, *(a_job(project_id="batch", schedule=cron("0 * * * *")) for _ in range(3)))
    await api.jobs.BulkPauseJobs(BulkPauseJobsRequest(project_id="batch"), metadata=ORG)
    await clock.advance(timedelta(minutes=90))
    done = await api.jobs.BulkResumeJobs(BulkResumeJobsRequest(project_id="batch"), metadata=ORG)
    assert (done.changed_count, done.unresumable_count, done.more) == (3, 1, False)
    active = await api.jobs.ListJobs(ListJobsRequest(states=[job_pb2.Job.STATE_ACTIVE]), metadata=ORG)
    assert {instant(job.next_fire_time) for job in active.jobs} == {NOON + timedelta(hours=2)}


async def test_a_bulk_call_is_bounded_and_repeating_it_comes_to_an_end(timed, monkeypatch: pytest.MonkeyPatch) -> None:
    api, clock = timed
    monkeypatch.setattr(bulk_change_state, "MAX_CHANGES", 4)
    over = [a_job(schedule=once_at(NOON + timedelta(minutes=1)), project_id="batch") for _ in range(9)]
    going = [a_job(project_id="batch") for _ in range(6)]
    await create_all(api, *going, *over)
    counts = []
    more = True
    while more:
        done = await api.jobs.BulkPauseJobs(BulkPauseJobsRequest(project_id="batch"), metadata=ORG)
        counts.append(done.changed_count)
        more = done.more
    assert counts == [4, 4, 4, 3]
    await clock.advance(timedelta(minutes=5))
    # The newest come first, and nine of them have no further fire: they do not hide the others.
    first = await api.jobs.BulkResumeJobs(BulkResumeJobsRequest(project_id="batch"), metadata=ORG)
    second = await api.jobs.BulkResumeJobs(BulkResumeJobsRequest(project_id="batch"), metadata=ORG)
    third = await api.jobs.BulkResumeJobs(BulkResumeJobsRequest(project_id="batch"), metadata=ORG)
    assert [(done.changed_count, done.more) for done in (first, second, third)] == [(4, True), (2, False), (0, False)]
    assert third.unresumable_count == 9


async def test_a_bulk_call_over_everything_is_refused(api: ServedScheduler) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.jobs.BulkPauseJobs(BulkPauseJobsRequest(note="all"), metadata=ORG)
    assert (refusal(raised.value).reason, refusal(raised.value).fields) == ("REQUIRED", ("project_id",))


async def test_a_key_that_no_label_has_finds_no_other_keys_jobs(api: ServedScheduler) -> None:
    # Labels are stored as `key=value`.
    await create_all(api, a_job(name="kept", labels={"team": "blue=sky"}))
    labels = {"team=blue": "sky"}
    for method, request in (
        (api.jobs.ListJobs, ListJobsRequest(labels=labels)),
        (api.jobs.BulkPauseJobs, BulkPauseJobsRequest(labels=labels)),
        (api.jobs.BulkResumeJobs, BulkResumeJobsRequest(labels=labels)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(request, metadata=ORG)
        assert refusal(raised.value).reason == "INVALID_LABEL_KEY"
    assert await names(api, labels={"team": "blue=sky"}, states=[job_pb2.Job.STATE_ACTIVE]) == ["kept"]
