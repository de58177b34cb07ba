"""Creation under an idempotency key, and what counts as a duplicate."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from libs.common.errors import AlreadyExistsError, InvalidArgumentError
from services.scheduler.domain.job import Job, JobDefinition, RetryPolicy
from services.scheduler.domain.schedule import Cron, Schedule
from services.scheduler.usecases.audit import JobAudit
from services.scheduler.usecases.caller import Caller, OrgScope
from services.scheduler.usecases.create_jobs import CreatedJob, CreateJobs, Submission
from services.scheduler.usecases.org_settings import OrgQuotas
from services.scheduler.usecases.resubmission import JudgeResubmission
from tests.support.scheduler_values import CALLER, NOW, SCOPE, a_definition, at, once
from tests.support.scheduler_world import AmpleOrg, Death, NoFields, World

WINDOW = timedelta(minutes=5)


@pytest.fixture
def create(world: World) -> CreateJobs:
    org = AmpleOrg()
    return CreateJobs(
        jobs=world.jobs,
        judge=JudgeResubmission(world.jobs, world.secrets),
        nudge=world.nudge,
        quotas=OrgQuotas(org, org),
        audit=JobAudit(NoFields()),
        clock=world.clock,
        duplicate_window=WINDOW,
    )


def keyed(definition: JobDefinition | None = None, key: str = "k", **options: bool) -> Submission:
    return Submission(definition or a_definition(), idempotency_key=key, **options)


async def test_a_new_job_knows_its_first_fire_and_announces_it(world: World, create: CreateJobs) -> None:
    created = await create.one(CALLER, keyed())
    job = created.job
    assert not created.replayed
    assert world.stored(job) == job
    assert (job.next_fire_time, job.next_due_time, job.revision) == (at(60), at(60), 1)
    assert (job.org_id, job.creator, job.create_time) == (SCOPE.org_id, "tester", NOW)
    assert world.nudge.notified == [at(60)]


async def test_a_key_makes_one_job_however_often_it_is_used(world: World, create: CreateJobs) -> None:
    first = await create.one(CALLER, keyed())
    await world.advance(90)
    again = await create.one(CALLER, keyed())
    assert (again.job, again.replayed) == (first.job, True)
    assert len(world.jobs.jobs) == 1


@pytest.mark.parametrize(
    "other",
    [
        a_definition(name="other"),
        a_definition(retry=RetryPolicy(max_attempts=1)),
        a_definition(schedule=Schedule(Cron("0 * * * *"))),
    ],
)
async def test_a_key_with_other_content_is_refused(world: World, create: CreateJobs, other: JobDefinition) -> None:
    first = await create.one(CALLER, keyed())
    with pytest.raises(AlreadyExistsError) as raised:
        await create.one(CALLER, keyed(other))
    assert (raised.value.reason, raised.value.resource_id) == ("IDEMPOTENCY_KEY_REUSED", first.job.job_id)
    assert list(world.jobs.jobs) == [first.job.job_id]


async def test_a_key_belongs_to_its_org_and_tells_others_nothing(create: CreateJobs) -> None:
    first = await create.one(CALLER, keyed())
    foreign = await create.one(Caller("c", OrgScope("org-b"), frozenset()), keyed())
    assert foreign.job.job_id != first.job.job_id
    narrow = Caller("c", OrgScope(SCOPE.org_id, frozenset({"p1"})), frozenset())
    with pytest.raises(AlreadyExistsError) as raised:
        await create.one(narrow, keyed(a_definition(project_id="p1")))
    assert raised.value.resource_id == ""
    assert first.job.job_id not in str(raised.value)


@pytest.mark.parametrize("key", ["k", ""])
async def test_equal_submissions_at_once_make_one_job(world: World, create: CreateJobs, key: str) -> None:
    async def slow(_: str) -> None:
        await asyncio.sleep(0)

    world.on_checkpoint = slow
    results = await asyncio.gather(*(create.one(CALLER, keyed(key=key)) for _ in range(6)), return_exceptions=True)
    made = [result for result in results if not isinstance(result, AlreadyExistsError)]
    assert len(world.jobs.jobs) == 1
    assert len(made) == (6 if key else 1)
    assert sum(not result.replayed for result in made) == 1


@pytest.mark.parametrize("checkpoint", ["jobs.insert_new.before", "jobs.insert_new.after"])
async def test_a_call_that_died_is_repeated_under_its_key(world: World, create: CreateJobs, checkpoint: str) -> None:
    world.die_at(checkpoint)
    with pytest.raises(Death):
        await create.one(CALLER, keyed())
    created = await create.one(CALLER, keyed())
    assert list(world.jobs.jobs) == [created.job.job_id]
    assert created.replayed is (checkpoint == "jobs.insert_new.after")


async def test_a_call_is_repeated_under_its_key_when_its_only_fire_is_over(world: World, create: CreateJobs) -> None:
    wanted = keyed(a_definition(schedule=once(at(10))))
    first = await create.one(CALLER, wanted)
    await world.advance(120)
    again = await create.one(CALLER, wanted)
    assert (again.job, again.replayed) == (first.job, True)
    (repeated, late) = await create.many(CALLER, [wanted, keyed(wanted.definition, key="later")])
    assert (isinstance(repeated, CreatedJob) and repeated.job) == first.job
    assert isinstance(late, InvalidArgumentError)
    with pytest.raises(InvalidArgumentError) as raised:
        await create.one(CALLER, keyed(a_definition(name="other", schedule=once(at(10)))))
    assert raised.value.reason == "RUN_AT_IN_PAST"
    assert len(world.jobs.jobs) == 1


async def test_a_duplicate_is_refused_within_the_window(world: World, create: CreateJobs) -> None:
    first = await create.one(CALLER, keyed(key="a"))
    with pytest.raises(AlreadyExistsError) as raised:
        await create.one(CALLER, keyed(a_definition(name="other name"), key="b"))
    assert (raised.value.reason, raised.value.resource_id) == ("DUPLICATE_JOB", first.job.job_id)
    await create.one(CALLER, keyed(key="c", allow_duplicate=True))
    await world.advance(WINDOW + timedelta(seconds=1))
    await create.one(CALLER, keyed(key="d"))
    assert len(world.jobs.jobs) == 3


async def test_what_is_only_checked_is_not_stored(world: World, create: CreateJobs) -> None:
    created = await create.one(CALLER, keyed(validate_only=True))
    assert created.job.next_fire_time == at(60)
    assert not world.jobs.jobs
    assert not world.nudge.notified


@pytest.mark.parametrize(
    ("submission", "field"),
    [
        (keyed(key="x" * 129), "idempotency_key"),
        (keyed(key="a b"), "idempotency_key"),
        (keyed(a_definition(name="")), "name"),
        (keyed(a_definition(schedule=once(at(-61)))), "schedule.one_time.instant"),
    ],
)
async def test_what_is_refused_is_not_stored(
    world: World, create: CreateJobs, submission: Submission, field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        await create.one(CALLER, submission)
    assert [violation.field for violation in raised.value.violations] == [field]
    assert not world.jobs.jobs


async def test_a_project_beyond_the_credential_is_refused(world: World, create: CreateJobs) -> None:
    narrow = Caller("c", OrgScope(SCOPE.org_id, frozenset({"p1"})), frozenset())
    with pytest.raises(InvalidArgumentError) as raised:
        await create.one(narrow, keyed())
    assert raised.value.reason == "PROJECT_NOT_ALLOWED"


async def test_instants_are_stored_as_they_are_compared(world: World, create: CreateJobs) -> None:
    await world.advance(timedelta(microseconds=1999))
    job: Job = (await create.one(CALLER, keyed())).job
    assert job.create_time == NOW + timedelta(milliseconds=1)
    assert world.stored(job) == job == replace(job)
