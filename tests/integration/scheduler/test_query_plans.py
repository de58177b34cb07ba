"""What the hot queries cost: none walks a collection or sorts in memory, and each reads about what it returns.

The stores are asked as in production while a listener notes the commands they send; these very commands are explained
afterwards, so that no test can drift from the code.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from services.scheduler.adapters.blobs.gridfs_blobs import PART_BYTES, PARTS, GridFsBlobs
from services.scheduler.adapters.key_ring import KeyRing
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.due_probe import MongoDueProbe
from services.scheduler.adapters.mongo.execution_store import MongoExecutionStore
from services.scheduler.adapters.mongo.header_secrets import HeaderSecrets
from services.scheduler.adapters.mongo.job_store import MongoJobStore
from services.scheduler.adapters.mongo.migrations import bind_documents, migrate
from services.scheduler.adapters.mongo.watched_records import MongoWatchedRecords
from services.scheduler.domain.execution import Execution, ExecutionState, Phase
from services.scheduler.domain.job import Job, JobState
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.execution_store import ExecutionFilter
from services.scheduler.usecases.ports.job_store import JobFilter
from services.scheduler.usecases.watchdog import Place
from tests.support.scheduler_values import (
    DAY,
    HOUR,
    NOW,
    RETENTION,
    SCOPE,
    a_definition,
    a_job,
    a_lease,
    an_execution,
    at,
    new_job_id,
    once,
)

ALL = range(256)
HALF = range(128)
JOBS = 3000
DUE = 400
HISTORY_JOBS = [new_job_id() for _ in range(40)]
FIRES = 100
LIVE = 50
PAGE = 50

Document = dict[str, Any]


@dataclass
class SentCommands(CommandListener):
    """Notes the commands that carry a query of the stores."""

    commands: list[Document] = field(default_factory=list)
    counts: list[Document] = field(default_factory=list)
    """Aggregations, which is what the driver makes of a count."""

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name in {"find", "update", "delete", "aggregate"}:
            driver_fields = {"lsid", "$db", "$clusterTime", "txnNumber", "writeConcern", "$readPreference"}
            kept = self.counts if event.command_name == "aggregate" else self.commands
            kept.append({k: v for k, v in event.command.items() if k not in driver_fields})

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Not of interest."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Not of interest."""


@dataclass(frozen=True)
class Plan:
    """What one command costs."""

    stages: frozenset[str]
    indexes: frozenset[str]
    returned: int
    keys: int
    documents: int


@dataclass
class Subject:
    jobs: MongoJobStore
    executions: MongoExecutionStore
    database: AsyncDatabase[Document]
    sent: SentCommands

    async def explain(self, call: Awaitable[object]) -> list[Plan]:
        """Return the plans of the commands that a call sends."""
        self.sent.commands.clear()
        await call
        return [await self.explained(command) for command in list(self.sent.commands)]

    async def explained(self, command: Document) -> Plan:
        answer = await self.database.command("explain", command, verbosity="executionStats")
        stats = answer["executionStats"]
        plan = [answer["queryPlanner"]["winningPlan"], stats["executionStages"]]
        return Plan(
            stages=frozenset(_named(plan, "stage")),
            indexes=frozenset(_named(plan, "indexName")),
            returned=stats["nReturned"],
            keys=stats["totalKeysExamined"],
            documents=stats["totalDocsExamined"],
        )


def _named(tree: object, key: str) -> Iterator[str]:
    """Return all texts under a key of a plan."""
    if isinstance(tree, Mapping):
        if isinstance(tree.get(key), str):
            yield tree[key]
        for value in tree.values():
            yield from _named(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from _named(value, key)


def assert_cheap(plan: Plan, *, factor: float = 1.0, more: int = 4) -> None:
    """Fail unless the plan walks an index in its order and reads about what it returns."""
    assert not plan.stages & {"COLLSCAN", "SORT"}, plan
    assert plan.keys <= plan.returned * factor + more, plan
    assert plan.documents <= plan.returned * factor + more, plan


def _jobs() -> Iterator[Job]:
    for number in range(JOBS):
        due = at(-number % 60) if number < DUE else NOW + HOUR + number * (DAY / JOBS)
        org = f"org-{'abc'[number % 3]}"
        yield a_job(
            a_definition(schedule=once(due), project_id=f"p{number % 2}", labels={"team": f"t{number % 10}"}),
            org_id=org,
            next_fire_time=due,
            next_due_time=due,
            state=JobState.PAUSED if number % 20 == 19 and number >= DUE else JobState.ACTIVE,
            idempotency_key=f"key-{number}" if number % 2 else "",
        )


def _executions() -> Iterator[Execution]:
    for index, job_id in enumerate(HISTORY_JOBS):
        for fire in range(FIRES):
            state = ExecutionState.FAILED if fire % 10 == 0 else ExecutionState.SUCCEEDED
            yield an_execution(
                job_id=job_id,
                fire_time=at(-60 * (fire + 1)),
                org_id=f"org-{'ab'[index % 2]}",
                state=state,
                phase=None,
                wake_time=None,
            )
    for phase in Phase:
        for number in range(LIVE):
            execution = an_execution(fire_time=at(number % 7), phase=phase, wake_time=at(number % 7 + 2))
            match phase:
                case Phase.LEASED:
                    execution = replace(execution, state=ExecutionState.RUNNING, begin_request_id=f"r{number}")
                case Phase.SETTLING:
                    execution = replace(execution, state=ExecutionState.FAILED)
            yield execution


@pytest.fixture(scope="module")
def filled_database(mongo_uri: str, mongo_janitor: MongoClient[Document]) -> Iterator[str]:
    name = f"test_plans_{uuid.uuid4().hex}"

    async def fill() -> None:
        async with _subject(mongo_uri, name) as subject:
            await migrate(subject.database)
            await subject.jobs.insert_new(list(_jobs()))
            await subject.executions.insert_new(list(_executions()))

    asyncio.run(fill())
    yield name
    mongo_janitor.drop_database(name)


class _subject:  # noqa: N801 - reads as the function it is
    """Opens stores on a database, with a listener on their client."""

    def __init__(self, uri: str, name: str) -> None:
        self._sent = SentCommands()
        self._client: AsyncMongoClient[Document] = AsyncMongoClient(uri, tz_aware=True, event_listeners=[self._sent])
        self._name = name

    async def __aenter__(self) -> Subject:
        database = self._client[self._name]
        await bind_documents(database)
        outbox = AuditOutbox()
        jobs = MongoJobStore(HeaderSecrets(KeyRing({"k1": b"k" * 32})), outbox)
        return Subject(jobs, MongoExecutionStore(RETENTION, outbox), database, self._sent)

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


@pytest.fixture
async def subject(mongo_uri: str, filled_database: str) -> AsyncIterator[Subject]:
    async with _subject(mongo_uri, filled_database) as subject:
        yield subject


# The tick


@pytest.mark.parametrize("partitions", [ALL, HALF, [77]], ids=["all", "half", "one"])
async def test_a_tick_with_nothing_due_costs_one_seek(subject: Subject, partitions: range) -> None:
    (plan,) = await subject.explain(subject.jobs.find_due(partitions, at(-1000), 1000))
    assert plan.returned == 0
    assert_cheap(plan, more=2)


async def test_a_tick_reads_the_jobs_that_are_due(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.jobs.find_due(ALL, at(100), 1000))
    assert plan.returned == DUE
    assert_cheap(plan)
    (plan,) = await subject.explain(subject.jobs.find_due(ALL, at(100), 100))
    assert plan.returned == 100
    assert_cheap(plan)


@pytest.mark.parametrize("partitions", [ALL, HALF])
async def test_whether_anything_is_due_is_a_seek_in_either_index(subject: Subject, partitions: Sequence[int]) -> None:
    subject.sent.counts.clear()
    assert not await MongoDueProbe().anything(partitions, at(-1000))
    (command,) = subject.sent.counts
    answer = await subject.database.command("explain", command, verbosity="executionStats")
    assert set(_named(answer, "indexName")) == {"tick", "wake"}
    assert not {"COLLSCAN", "SORT"} & set(_named(answer, "stage")), answer
    assert max(_numbers(answer, "totalKeysExamined")) <= 1


async def test_a_tick_of_some_partitions_passes_over_the_others_in_the_index(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.jobs.find_due(HALF, at(100), 1000))
    assert 0 < plan.returned < DUE
    # The keys of others' due jobs are skipped or read, but never their documents.
    assert plan.keys <= 2 * DUE
    assert plan.documents == plan.returned
    assert not plan.stages & {"COLLSCAN", "SORT"}


async def test_a_look_past_an_orgs_backlog_reads_its_keys_and_none_of_its_documents(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.jobs.find_due(ALL, at(100), 1000, without_orgs=["org-a", "org-b"]))
    assert 0 < plan.returned < DUE
    assert plan.keys <= 2 * DUE
    assert plan.documents == plan.returned
    assert not plan.stages & {"COLLSCAN", "SORT"}
    for finding in (subject.executions.find_overdue, subject.executions.find_ready):
        (plan,) = await subject.explain(finding(at(6), 1000, without_orgs=[SCOPE.org_id]))
        assert (plan.returned, plan.documents) == (0, 0)
        assert plan.keys <= 4 * LIVE
        assert not plan.stages & {"COLLSCAN", "SORT"}


async def test_fires_on_time_are_read_past_all_that_was_missed(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.jobs.find_due(ALL, at(100), 1000, since=at(10)))
    assert 0 < plan.returned < DUE
    assert_cheap(plan)


async def test_waits_with_nothing_to_take_cost_one_seek(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.executions.take_waiting(ALL, at(-1000), 1000))
    assert plan.returned == 0
    assert_cheap(plan, more=2)


async def test_waits_that_end_are_read_and_written_by_their_keys(subject: Subject) -> None:
    taken = await subject.executions.take_waiting(ALL, at(3), 1000)
    commands = list(subject.sent.commands)
    for execution in taken:
        again = {"$set": {"phase": Phase.WAITING, "wake_time": execution.wake_time}}
        await subject.database["executions"].update_one({"_id": execution.execution_id}, again)
    found, written = [await subject.explained(command) for command in commands]
    assert found.returned == len(taken) > 5
    assert_cheap(found)
    assert not written.stages & {"COLLSCAN", "SORT"}
    assert written.documents == len(taken)


# The poll path


@pytest.mark.parametrize("limit", [5, 1000])
async def test_overdue_executions_are_read_in_the_order_of_the_index(subject: Subject, limit: int) -> None:
    (plan,) = await subject.explain(subject.executions.find_overdue(at(6), limit))
    assert plan.returned >= 5
    assert_cheap(plan)


async def test_a_poll_with_nothing_overdue_costs_a_seek_a_phase(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.executions.find_overdue(at(-1000), 1000))
    assert plan.returned == 0
    assert_cheap(plan)


@pytest.mark.parametrize("limit", [5, 1000])
async def test_ready_executions_are_read_in_the_order_of_the_index(subject: Subject, limit: int) -> None:
    (plan,) = await subject.explain(subject.executions.find_ready(at(3), limit))
    assert plan.returned >= 5
    assert_cheap(plan, factor=1.5, more=8)


async def test_a_repeated_poll_walks_what_is_leased_and_nothing_else(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.executions.find_begun("r3", NOW))
    assert plan.returned == 1
    assert plan.keys <= LIVE + 1
    assert not plan.stages & {"COLLSCAN", "SORT"}


async def test_unsettled_executions_are_found_by_their_phase(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.executions.find_unsettled(at(5), 1000))
    assert plan.returned > 5
    assert_cheap(plan)


async def test_grants_and_reports_find_their_executions_by_id(subject: Subject) -> None:
    execution = an_execution()
    plans = await subject.explain(subject.executions.load([execution.execution_id, "gone"]))
    plans += await subject.explain(subject.executions.extend("x", {"gone": 1}, NOW))
    plans += await subject.explain(subject.executions.grant(a_lease(), []))
    assert len(plans) == 3
    for plan in plans:
        assert_cheap(plan)


# What ends


async def test_what_is_live_of_a_job_is_found_among_its_history(subject: Subject) -> None:
    running = an_execution(job_id=HISTORY_JOBS[0], fire_time=at(5))
    await subject.executions.insert_new([running])
    (plan,) = await subject.explain(subject.executions.find_live_jobs(set(HISTORY_JOBS)))
    assert_cheap(plan, more=len(HISTORY_JOBS))
    (plan,) = await subject.explain(subject.executions.withdraw(HISTORY_JOBS[0], "JOB_PAUSED", at(10)))
    assert not plan.stages & {"COLLSCAN", "SORT"}
    assert plan.keys <= 2


async def test_the_latest_ends_of_a_job_are_read_from_its_index(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.executions.latest_states(HISTORY_JOBS[0], 5))
    assert plan.returned == 5
    assert_cheap(plan)
    (plan,) = await subject.explain(subject.executions.last_success_times({HISTORY_JOBS[0]}))
    assert plan.returned == 1
    assert_cheap(plan)


async def test_the_overlap_slot_is_its_own_index(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.executions.is_slot_taken(HISTORY_JOBS[0]))
    assert_cheap(plan)
    (plan,) = await subject.explain(subject.executions.wake_queued({HISTORY_JOBS[0]}, NOW))
    assert_cheap(plan)


# Lists

JOB_LISTS: Mapping[str, tuple[OrgScope, JobFilter]] = {
    "org": (SCOPE, JobFilter()),
    "project": (SCOPE, JobFilter(project_id="p0")),
    "project scope": (OrgScope("org-a", frozenset({"p0"})), JobFilter()),
    "state": (SCOPE, JobFilter(states=frozenset({JobState.ACTIVE}))),
    "label": (SCOPE, JobFilter(labels={"team": "t0"})),
    "host": (SCOPE, JobFilter(target_host="api.example.com")),
}


@pytest.mark.parametrize("name", JOB_LISTS)
async def test_a_page_of_jobs_costs_the_same_wherever_it_begins(subject: Subject, name: str) -> None:
    scope, where = JOB_LISTS[name]
    after = ""
    for _ in range(2):
        page = await subject.jobs.find_page(scope, where, after=after, limit=PAGE)
        (plan,) = await subject.explain(subject.jobs.find_page(scope, where, after=after, limit=PAGE))
        assert plan.returned == len(page) == PAGE
        assert_cheap(plan, factor=1.2, more=10)
        after = page[-1].job_id


EXECUTION_LISTS: Mapping[str, Callable[[], ExecutionFilter]] = {
    "org": ExecutionFilter,
    "job": lambda: ExecutionFilter(job_id=HISTORY_JOBS[0]),
    "state": lambda: ExecutionFilter(states=frozenset({ExecutionState.FAILED})),
    "states": lambda: ExecutionFilter(states=frozenset({ExecutionState.FAILED, ExecutionState.SUCCEEDED})),
    "window": lambda: ExecutionFilter(fire_after=at(-3000), fire_before=at(-600)),
}


@pytest.mark.parametrize("name", EXECUTION_LISTS)
async def test_a_page_of_executions_costs_the_same_wherever_it_begins(subject: Subject, name: str) -> None:
    where = EXECUTION_LISTS[name]()
    after = None
    limit = 20
    for _ in range(3):
        page = await subject.executions.find_page(SCOPE, where, after=after, limit=limit)
        (plan,) = await subject.explain(subject.executions.find_page(SCOPE, where, after=after, limit=limit))
        assert plan.returned == len(page) == limit
        # Ties of the last fire time are passed over: at most one execution a job.
        assert_cheap(plan, more=len(HISTORY_JOBS))
        after = (page[-1].fire_time, page[-1].execution_id)


async def test_a_window_of_a_job_is_read_from_its_index(subject: Subject) -> None:
    (plan,) = await subject.explain(
        subject.executions.find_window(HISTORY_JOBS[0], at(-3000), at(-600), after=None, limit=20)
    )
    assert plan.returned == 20
    assert_cheap(plan)


async def test_jobs_are_found_by_what_makes_them_unique(subject: Subject) -> None:
    keys = [f"key-{number}" for number in range(3, 30, 6)]
    (plan,) = await subject.explain(subject.jobs.find_by_idempotency_keys("org-a", keys))
    assert plan.returned == len(keys)
    assert_cheap(plan, factor=2)
    (plan,) = await subject.explain(subject.jobs.find_by_fingerprints(["f"]))
    assert_cheap(plan)


async def test_orphans_are_found_by_the_absence_of_a_fire(subject: Subject) -> None:
    (plan,) = await subject.explain(subject.jobs.find_orphaned(NOW, 500))
    assert plan.returned == 0
    assert_cheap(plan, more=2)


# The watchdog


async def test_the_watchdog_looks_at_the_oldest_of_each_kind(subject: Subject) -> None:
    plans = await subject.explain(MongoWatchedRecords().overdue(at(6), 1000))
    # One for each place, and whether there is any execution at all.
    assert [plan.returned for plan in plans] == [1] * (len(Place) + 1)
    for plan in plans:
        assert_cheap(plan)


async def test_the_watchdog_counts_along_an_index_up_to_a_bound(subject: Subject) -> None:
    subject.sent.counts.clear()
    found = await MongoWatchedRecords().overdue(at(6), 20)
    assert {overdue.count for overdue in found.values()} == {20}
    assert len(subject.sent.counts) == len(Place)
    for command in subject.sent.counts:
        answer = await subject.database.command("explain", command, verbosity="executionStats")
        assert not {"COLLSCAN", "SORT"} & set(_named(answer, "stage")), answer
        assert max(_numbers(answer, "totalKeysExamined")) <= 22


async def test_the_watchdog_finds_the_partitions_of_overdue_jobs(subject: Subject) -> None:
    (plan,) = await subject.explain(MongoWatchedRecords().partitions_of_overdue_jobs(ALL, at(60), 100))
    assert plan.returned == 100
    assert_cheap(plan)


# Answers


async def test_an_answer_is_read_and_removed_by_its_own_parts(subject: Subject) -> None:
    store = GridFsBlobs()

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"x" * PART_BYTES

    for number in range(3):
        await store.write(f"answer-{number}", parts())

    async def read() -> None:
        assert len([part async for part in store.open_stream("answer-1")]) == 6

    plans = await subject.explain(read())
    assert 6 in {plan.returned for plan in plans}
    for plan in plans:
        assert_cheap(plan)
    subject.sent.commands.clear()
    await store.delete("answer-1")
    (removal,) = [command for command in subject.sent.commands if command.get("delete") == PARTS]
    plan = await subject.explained(removal)
    assert "COLLSCAN" not in plan.stages
    assert plan.documents == 0


def _numbers(tree: object, key: str) -> Iterator[int]:
    """Return all numbers under a key of a plan."""
    if isinstance(tree, Mapping):
        if isinstance(tree.get(key), int):
            yield tree[key]
        for value in tree.values():
            yield from _numbers(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from _numbers(value, key)
