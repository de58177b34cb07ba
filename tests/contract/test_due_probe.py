"""What a waiting acquire call relies on when it asks whether anything is due, in memory and in MongoDB."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from libs.common.clock import SystemClock
from services.scheduler.adapters.key_ring import KeyRing
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.due_probe import MongoDueProbe
from services.scheduler.adapters.mongo.execution_store import MongoExecutionStore
from services.scheduler.adapters.mongo.header_secrets import HeaderSecrets
from services.scheduler.adapters.mongo.job_store import MongoJobStore
from services.scheduler.domain.execution import Execution, ExecutionState, Phase
from services.scheduler.domain.job import Job, JobState
from services.scheduler.testing.memory_due_probe import MemoryDueProbe
from services.scheduler.testing.memory_execution_store import MemoryExecutionStore
from services.scheduler.testing.memory_job_store import MemoryJobStore
from services.scheduler.usecases.acquire_due import DueProbe
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.job_store import JobStore
from tests.support.scheduler_values import DAY, a_job, an_execution, at

ALL = range(256)
Insert = Callable[..., Awaitable[None]]


@pytest.fixture
def subject(in_mongo: bool) -> tuple[DueProbe, Insert]:
    if in_mongo:
        jobs: JobStore = MongoJobStore(HeaderSecrets(KeyRing({"k1": b"k" * 32})), AuditOutbox())
        executions: ExecutionStore = MongoExecutionStore(DAY, AuditOutbox())
        probe: DueProbe = MongoDueProbe()
    else:
        jobs, executions = kept = MemoryJobStore(), MemoryExecutionStore(DAY, SystemClock())
        probe = MemoryDueProbe(*kept)

    async def insert(*records: Job | Execution) -> None:
        for record in records:
            if isinstance(record, Job):
                await jobs.insert_new([record])
            else:
                await executions.insert_new([record])

    return probe, insert


def due_job(**changes: object) -> Job:
    return a_job(next_fire_time=at(5), next_due_time=at(5), **changes)


async def test_a_job_counts_from_its_due_time_on(subject: tuple[DueProbe, Insert]) -> None:
    probe, insert = subject
    assert not await probe.anything(ALL, at(100))
    await insert(due_job())
    assert not await probe.anything(ALL, at(4.999))
    assert await probe.anything(ALL, at(5))


async def test_a_wait_counts_from_its_end_on(subject: tuple[DueProbe, Insert]) -> None:
    probe, insert = subject
    await insert(an_execution(phase=Phase.WAITING, wake_time=at(5)))
    assert not await probe.anything(ALL, at(4.999))
    assert await probe.anything(ALL, at(5))


async def test_only_the_partitions_asked_for_count(subject: tuple[DueProbe, Insert]) -> None:
    probe, insert = subject
    job = due_job()
    await insert(job, an_execution(phase=Phase.WAITING, wake_time=at(5), partition=(job.partition + 1) % 256))
    assert await probe.anything([job.partition], at(5))
    assert await probe.anything([(job.partition + 1) % 256], at(5))
    assert not await probe.anything([n for n in ALL if n not in {job.partition, (job.partition + 1) % 256}], at(5))


async def test_what_no_tick_would_take_does_not_count(subject: tuple[DueProbe, Insert]) -> None:
    probe, insert = subject
    await insert(
        due_job(state=JobState.PAUSED),
        a_job(next_fire_time=None, next_due_time=None),
        an_execution(phase=Phase.DISPATCHED, wake_time=at(5)),
        an_execution(state=ExecutionState.FAILED, phase=Phase.SETTLING, wake_time=at(5)),
    )
    assert not await probe.anything(ALL, at(100))
