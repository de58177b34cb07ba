"""Quotas of an org: jobs, the interval between fires, and stored answers."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest

from libs.common.errors import InvalidArgumentError, ResourceExhaustedError
from services.scheduler.adapters.rpc.answer_chunks import answer_chunks, single_part
from services.scheduler.domain.execution import HEAD_BYTES, StoredResponse, head_of
from services.scheduler.domain.job import Target
from services.scheduler.domain.org import OrgSettings
from services.scheduler.usecases.audit import JobAudit
from services.scheduler.usecases.create_jobs import CreatedJob, CreateJobs, Submission
from services.scheduler.usecases.org_settings import OrgQuotas
from services.scheduler.usecases.report_attempts import QUOTA_WARNING
from services.scheduler.usecases.resubmission import JudgeResubmission
from services.scheduler.usecases.update_job import UpdateJob
from tests.support.scheduler_values import CALLER, MINUTE, RETENTION, SCOPE, a_definition, once
from tests.support.scheduler_world import NoFields, World


class Org:
    """Implements `OrgSettingsReader` and `OrgUsage` for one org."""

    def __init__(self, world: World, max_jobs: int = 100, min_interval: timedelta = timedelta(0)) -> None:
        self._settings = OrgSettings(
            SCOPE.org_id, max_jobs, max_stored_bytes=1, max_creates_per_minute=1, min_interval=min_interval
        )
        self.count = 0

    async def read(self, org_id: str) -> OrgSettings:
        return self._settings

    async def job_count(self, org_id: str, max_age_seconds: float) -> int:
        return self.count

    def add_jobs(self, org_id: str, count: int) -> None:
        self.count += count

    async def stored_bytes(self, org_id: str) -> int:
        return 0


def creating(world: World, org: Org) -> CreateJobs:
    judge = JudgeResubmission(world.jobs, world.secrets)
    quotas, audit = OrgQuotas(org, org), JobAudit(NoFields())
    return CreateJobs(world.jobs, judge, world.nudge, quotas, audit, world.clock, timedelta(minutes=5))


def submission(number: int, key: str = "") -> Submission:
    target = Target("https://api.example.com/", f"prompt {number}")
    return Submission(a_definition(target=target), idempotency_key=key)


async def test_jobs_beyond_the_quota_are_refused_and_those_before_are_stored():
    world = World()
    create = creating(world, Org(world, max_jobs=2))
    outcomes = await create.many(CALLER, [submission(number) for number in range(4)])
    assert [type(outcome) for outcome in outcomes] == [CreatedJob, CreatedJob, *[ResourceExhaustedError] * 2]
    with pytest.raises(ResourceExhaustedError) as refused:
        await create.one(CALLER, submission(9))
    assert (refused.value.reason, refused.value.metadata["limit"]) == ("JOB_QUOTA_EXCEEDED", "2")


async def test_a_repetition_is_answered_in_a_full_org():
    world = World()
    create = creating(world, Org(world, max_jobs=1))
    first = await create.one(CALLER, submission(1, key="once"))
    confirmed: list[str] = []

    async def note(checkpoint: str) -> None:
        confirmed.extend([checkpoint] if "confirm" in checkpoint else [])

    world.on_checkpoint = note
    again = await create.one(CALLER, submission(1, key="once"))
    assert (again.replayed, again.job.job_id) == (True, first.job.job_id)
    assert confirmed == ["jobs.confirm.before", "jobs.confirm.after"]


async def test_repetitions_take_no_room_from_the_jobs_behind_them():
    world = World()
    create = creating(world, Org(world, max_jobs=3))
    await create.many(CALLER, [submission(number, key=f"key-{number}") for number in range(2)])
    outcomes = await create.many(CALLER, [submission(number, key=f"key-{number}") for number in range(5)])
    assert [isinstance(outcome, CreatedJob) and outcome.replayed for outcome in outcomes[:3]] == [True, True, False]
    assert [type(outcome) for outcome in outcomes[2:]] == [CreatedJob, *[ResourceExhaustedError] * 2]
    assert len(world.jobs.jobs) == 3


async def test_a_schedule_that_fires_too_often_is_not_created():
    world = World()
    create = creating(world, Org(world, min_interval=5 * MINUTE))
    with pytest.raises(InvalidArgumentError) as refused:
        await create.one(CALLER, submission(1))
    assert [(v.field, v.reason) for v in refused.value.violations] == [("schedule", "INTERVAL_TOO_SHORT")]


async def test_a_schedule_that_fires_too_often_is_not_updated_but_another_field_is():
    world = World()
    org = Org(world, min_interval=5 * MINUTE)
    update = UpdateJob(
        world.jobs, world.executions, world.nudge, OrgQuotas(org, org), JobAudit(NoFields()), world.clock, RETENTION
    )
    job = await world.job()
    renamed = await update(CALLER, job.job_id, lambda definition: a_definition(name="other"))
    assert renamed.definition.name == "other"
    calm = await world.job(schedule=once(world.clock.now() + 60 * MINUTE))
    with pytest.raises(InvalidArgumentError):
        await update(CALLER, calm.job_id, lambda definition: a_definition())


async def reported(world: World, response: StoredResponse) -> str:
    """Run a job once with this answer; returns the execution's id."""
    await world.job(schedule=once(world.clock.now()))
    (execution_id,) = await world.delivered()
    granted = await world.begun(execution_id)
    assert await world.reports([replace(world.report_of(granted), response=response)])
    return execution_id


async def downloaded(kept: StoredResponse) -> bytes:
    """Return what DownloadResponse gives of an answer that is kept in its record."""
    chunks = answer_chunks(single_part(kept.body), encoding=kept.encoding, size_bytes=kept.stored_size_bytes, raw=False)
    return b"".join([chunk async for chunk in chunks])


async def test_answers_that_stay_are_counted():
    world = World()
    await reported(world, StoredResponse(200, body=b"x" * 700, stored_size_bytes=700))
    assert world.answers.stored == [(SCOPE.org_id, 700)]


async def test_of_answers_beyond_the_quota_only_the_head_is_kept():
    world = World()
    world.answers.full.add(SCOPE.org_id)
    execution_id = await reported(world, StoredResponse(200, body=b"x" * 7000, stored_size_bytes=7000))
    kept = world.execution(execution_id).response
    assert kept is not None
    assert (kept.body, kept.head, kept.truncated) == (b"x" * HEAD_BYTES, b"", True)
    assert kept.sha256 == hashlib.sha256(kept.body).digest()
    assert kept.warning == QUOTA_WARNING
    assert await downloaded(kept) == b"x" * HEAD_BYTES
    assert world.answers.stored == [(SCOPE.org_id, HEAD_BYTES)]


def test_the_head_of_a_compressed_answer_is_not_made_of_compressed_bytes():
    head = head_of(StoredResponse(200, body=b"\x28\xb5", encoding="zstd", stored_size_bytes=9), "why")
    assert (head.body, head.head, head.encoding, head.stored_size_bytes) == (b"", b"", "", 0)


async def test_the_head_of_an_uploaded_answer_is_kept():
    head = head_of(StoredResponse(200, blob_id="b1", head=b"begin", stored_size_bytes=10**6), "why")
    assert (head.blob_id, head.body, await downloaded(head)) == ("", b"begin", b"begin")
