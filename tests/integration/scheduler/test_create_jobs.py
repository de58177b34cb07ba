"""CreateJob and BatchCreateJobs over the wire: defaults, repetitions, duplicates, and what many do at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import grpc
import pytest
from punctual.v1 import job_pb2, schedule_pb2
from punctual.v1.job_service_pb2 import (
    BatchCreateJobsRequest,
    CreateJobRequest,
    CreateJobResponse,
    DeleteJobRequest,
    GetJobRequest,
    ListJobsRequest,
    PauseJobRequest,
    PreviewScheduleRequest,
    UpdateJobRequest,
)

from libs.common.testing.fake_clock import FakeClock
from tests.support.served_scheduler import (
    ORG,
    Refusal,
    ServedScheduler,
    a_job,
    a_timestamp,
    cron,
    once_at,
    refusal,
    served_scheduler,
)

_Answer = TypeVar("_Answer")
CALLERS = 50


async def create(api: ServedScheduler, job: job_pb2.Job, **changes: object) -> CreateJobResponse:
    return await api.jobs.CreateJob(CreateJobRequest(job=job, **changes), metadata=ORG)


async def stored(api: ServedScheduler) -> list[job_pb2.Job]:
    return list((await api.jobs.ListJobs(ListJobsRequest(page_size=1000), metadata=ORG)).jobs)


async def refused(call: Awaitable[object]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return refusal(raised.value)


async def settled(call: Awaitable[_Answer]) -> _Answer | Refusal:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return refusal(error)


async def test_a_new_job_shows_its_defaults_and_its_next_five_fires(api: ServedScheduler) -> None:
    answer = await create(api, a_job())
    assert answer.job.project_id == "default"
    assert answer.job.retry_policy.max_attempts == 3
    assert answer.job.timeout_policy.first_byte.seconds == 30
    assert answer.job.overlap_policy == job_pb2.OVERLAP_POLICY_SKIP
    assert answer.job.state == job_pb2.Job.STATE_ACTIVE
    assert len(answer.next_fires) == 5
    assert answer.next_fires[0].fire_time == answer.job.next_fire_time
    assert answer.job == await api.jobs.GetJob(GetJobRequest(job_id=answer.job.job_id), metadata=ORG)


async def test_what_is_only_validated_is_not_stored(api: ServedScheduler) -> None:
    answer = await create(api, a_job(), validate_only=True)
    assert (answer.job.job_id, answer.job.etag) == ("", "")
    assert answer.job.max_consecutive_failures == 5
    assert await stored(api) == []


async def test_validation_foretells_a_duplicate_and_a_repetition(api: ServedScheduler) -> None:
    job = a_job()
    first = await create(api, job, idempotency_key="k")
    assert (await refused(create(api, job, validate_only=True))).reason == "DUPLICATE_JOB"
    again = await create(api, job, idempotency_key="k", validate_only=True)
    assert (again.replayed, again.job.job_id) == (True, first.job.job_id)


async def test_one_key_makes_one_job_however_many_call_at_once(api: ServedScheduler) -> None:
    job = a_job()
    answers = await asyncio.gather(*(create(api, job, idempotency_key="nightly") for _ in range(CALLERS)))
    assert len({answer.job.job_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert len(await stored(api)) == 1


async def test_equal_jobs_at_once_make_one_and_the_others_hear_of_it(api: ServedScheduler) -> None:
    job = a_job()
    answers = await asyncio.gather(*(settled(create(api, job)) for _ in range(CALLERS)))
    created = [answer for answer in answers if isinstance(answer, CreateJobResponse)]
    others = [answer for answer in answers if isinstance(answer, Refusal)]
    assert len(created) == 1
    assert {(other.code, other.reason, other.metadata["existingJobId"]) for other in others} == {
        (grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_JOB", created[0].job.job_id)
    }
    assert all(other.metadata["windowEndTime"] for other in others)


async def test_wanted_duplicates_at_once_are_all_made(api: ServedScheduler) -> None:
    job = a_job()
    answers = await asyncio.gather(*(create(api, job, allow_duplicate=True) for _ in range(CALLERS)))
    assert len({answer.job.job_id for answer in answers}) == CALLERS
    assert (await refused(create(api, job))).reason == "DUPLICATE_JOB"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"labels": {"team": "b"}},
        {"max_consecutive_failures": 7},
        {"retry_policy": job_pb2.RetryPolicy(max_attempts=5)},
        {"schedule": cron("0 9 * * *")},
        {"target": job_pb2.Target(url="https://api.example.com/v1", prompt="Something else.")},
        {"project_id": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_key_stands_for_its_whole_content(api: ServedScheduler, change: dict[str, object]) -> None:
    job = a_job()
    first = await create(api, job, idempotency_key="k")
    other = job_pb2.Job()
    other.CopyFrom(a_job(**change))
    if "target" not in change:
        other.target.CopyFrom(job.target)
    answer = await refused(create(api, other, idempotency_key="k"))
    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED")
    assert answer.metadata["resourceId"] == first.job.job_id


async def test_secrets_are_part_of_a_keys_content(api: ServedScheduler) -> None:
    def with_token(value: str) -> job_pb2.Job:
        job = a_job()
        job.target.prompt = "Say it."
        job.target.headers.add(name="Authorization", value=value)
        return job

    await create(api, with_token("Bearer one"), idempotency_key="k")
    assert (await create(api, with_token("Bearer one"), idempotency_key="k")).replayed
    answer = await refused(create(api, with_token("Bearer two"), idempotency_key="k"))
    assert answer.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_a_key_is_remembered_with_its_first_content_after_an_update(api: ServedScheduler) -> None:
    job = a_job()
    first = await create(api, job, idempotency_key="k")
    changed = job_pb2.Job(job_id=first.job.job_id, name="renamed")
    await api.jobs.UpdateJob(UpdateJobRequest(job=changed), metadata=ORG)
    again = await create(api, job, idempotency_key="k")
    assert (again.replayed, again.job.name) == (True, "renamed")


async def test_keys_of_orgs_do_not_meet(api: ServedScheduler) -> None:
    other = (("x-punctual-org", "globex"),)
    await create(api, a_job(), idempotency_key="k")
    answer = await api.jobs.CreateJob(CreateJobRequest(job=a_job(), idempotency_key="k"), metadata=other)
    assert not answer.replayed


async def test_a_deleted_job_blocks_no_other(api: ServedScheduler) -> None:
    job = a_job()
    first = await create(api, job)
    await api.jobs.DeleteJob(DeleteJobRequest(job_id=first.job.job_id), metadata=ORG)
    assert (await create(api, job)).job.job_id != first.job.job_id


async def test_a_changed_job_no_longer_blocks_what_it_was(api: ServedScheduler) -> None:
    job = a_job()
    first = await create(api, job)
    changed = job_pb2.Job(job_id=first.job.job_id, target=job_pb2.Target(prompt="Something else."))
    await api.jobs.UpdateJob(UpdateJobRequest(job=changed), metadata=ORG)
    await create(api, job)


async def test_a_paused_job_goes_on_to_block(api: ServedScheduler) -> None:
    job = a_job()
    first = await create(api, job)
    await api.jobs.PauseJob(PauseJobRequest(job_id=first.job.job_id), metadata=ORG)
    assert (await refused(create(api, job))).reason == "DUPLICATE_JOB"


async def test_a_window_ends(mongo_uri: str, empty_database: str) -> None:
    job = a_job()
    async with served_scheduler(mongo_uri, empty_database, fingerprint_window_seconds=0.05) as api:
        await create(api, job)
        await asyncio.sleep(0.06)
        answers = await asyncio.gather(*(settled(create(api, job)) for _ in range(10)))
        assert sum(isinstance(answer, CreateJobResponse) for answer in answers) >= 1
    async with served_scheduler(mongo_uri, empty_database, fingerprint_window_seconds=0) as api:
        await asyncio.sleep(0.06)
        await asyncio.gather(create(api, job), create(api, job))


async def test_a_batch_tells_each_item_what_came_of_it(api: ServedScheduler) -> None:
    twin, keyed = a_job(), a_job()
    existing = await create(api, a_job(), idempotency_key="old")
    requests = [
        CreateJobRequest(job=twin),
        CreateJobRequest(job=twin),
        CreateJobRequest(job=a_job(name="")),
        CreateJobRequest(job=keyed, idempotency_key="new"),
        CreateJobRequest(job=keyed, idempotency_key="new"),
        CreateJobRequest(job=a_job(name="other"), idempotency_key="new"),
        CreateJobRequest(job=a_job(), idempotency_key="old"),
        CreateJobRequest(job=a_job(schedule=cron("61 * * * *"))),
        CreateJobRequest(job=twin, allow_duplicate=True),
        CreateJobRequest(job=a_job(), validate_only=True),
    ]
    answer = await api.jobs.BatchCreateJobs(BatchCreateJobsRequest(requests=requests), metadata=ORG)
    results = answer.results
    errors = {index: result.error for index, result in enumerate(results) if result.WhichOneof("result") == "error"}
    assert {index: (error.code, error.reason, error.field) for index, error in errors.items()} == {
        1: (6, "DUPLICATE_JOB", ""),
        2: (3, "REQUIRED", "job.name"),
        5: (6, "IDEMPOTENCY_KEY_REUSED", ""),
        6: (6, "IDEMPOTENCY_KEY_REUSED", ""),
        7: (3, "INVALID_CRON", "job.schedule.cron.expression"),
    }
    assert results[3].job.job_id == results[4].job.job_id
    assert results[8].job.job_id != results[0].job.job_id
    assert results[9].job.job_id == ""
    ids = {existing.job.job_id, *(results[index].job.job_id for index in (0, 3, 8))}
    assert {job.job_id for job in await stored(api)} == ids


async def test_a_full_batch_is_stored_as_it_is_answered(api: ServedScheduler) -> None:
    requests = [CreateJobRequest(job=a_job(labels={"number": str(number)})) for number in range(1000)]
    answer = await api.jobs.BatchCreateJobs(BatchCreateJobsRequest(requests=requests), metadata=ORG)
    assert [result.job.labels["number"] for result in answer.results] == [str(number) for number in range(1000)]
    by_id = {job.job_id: job for job in await stored(api)}
    assert by_id == {result.job.job_id: result.job for result in answer.results}


async def test_batches_of_the_same_keys_at_once_make_each_job_once(api: ServedScheduler) -> None:
    requests = [CreateJobRequest(job=a_job(), idempotency_key=f"k{number}") for number in range(100)]
    batch = BatchCreateJobsRequest(requests=requests)
    answers = await asyncio.gather(*(api.jobs.BatchCreateJobs(batch, metadata=ORG) for _ in range(5)))
    ids = [[result.job.job_id for result in answer.results] for answer in answers]
    assert all(row == ids[0] for row in ids)
    assert len(await stored(api)) == 100


async def test_what_is_wrong_is_said_all_at_once(api: ServedScheduler) -> None:
    job = a_job(name="", schedule=cron("x y z"), max_consecutive_failures=-1)
    job.target.url = "ftp://example.com"
    job.target.headers.add(name="bad name", value="x")
    refusal = await refused(create(api, job, idempotency_key="k" * 200))
    assert set(refusal.fields) >= {
        "job.name",
        "job.schedule.cron.expression",
        "job.target.url",
        "job.target.headers[0].name",
        "job.max_consecutive_failures",
    }


@pytest.mark.parametrize("late", [0, 30])
async def test_a_preview_shows_the_fire_that_a_creation_would_have_now(
    mongo_uri: str, empty_database: str, late: int
) -> None:
    noon = datetime(2040, 1, 2, 12, 0, tzinfo=UTC)
    async with served_scheduler(mongo_uri, empty_database, clock=FakeClock(noon)) as api:
        schedule = once_at(noon - timedelta(seconds=late))
        previewed = await api.jobs.PreviewSchedule(PreviewScheduleRequest(schedule=schedule), metadata=ORG)
        created = await api.jobs.CreateJob(CreateJobRequest(job=a_job(schedule=schedule)), metadata=ORG)
        assert list(previewed.fires) == list(created.next_fires) != []
        after = PreviewScheduleRequest(schedule=schedule, after=a_timestamp(noon))
        assert not (await api.jobs.PreviewSchedule(after, metadata=ORG)).fires


async def test_what_is_wrong_is_said_all_at_once_also_beside_what_cannot_be_read(api: ServedScheduler) -> None:
    job = a_job(name="", overlap_policy=99)
    job.schedule.CopyFrom(schedule_pb2.Schedule(daily=schedule_pb2.DailyRule(time="9:00"), time_zone="Berlin"))
    job.schedule.start_time.nanos = -1
    job.schedule.jitter.seconds = 7200
    job.target.url = "ftp://example.com"
    job.target.body.SetInParent()
    job.response_policy.success_codes.append(99)
    job.response_policy.checks.add(json_path_exists="$[")
    assert set((await refused(create(api, job))).fields) == {
        "job.name",
        "job.overlap_policy",
        "job.schedule.daily.time",
        "job.schedule.time_zone",
        "job.schedule.start_time",
        "job.schedule.jitter",
        "job.target.url",
        "job.target.body.form",
        "job.response_policy.success_codes",
        "job.response_policy.checks[0].json_path_exists",
    }


async def test_a_sound_schedule_beside_what_cannot_be_read_is_not_complained_of(api: ServedScheduler) -> None:
    job = a_job(schedule=cron("0 0 29 2 1"), overlap_policy=99)
    job.schedule.start_time.GetCurrentTime()
    assert (await refused(create(api, job))).fields == ("job.overlap_policy",)
    job.schedule.cron.expression = "0 0 30 2 *"
    assert set((await refused(create(api, job))).fields) == {"job.overlap_policy", "job.schedule.cron.expression"}
