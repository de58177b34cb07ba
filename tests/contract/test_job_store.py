"""What the use cases rely on in a job store, held against the one in memory and the one in MongoDB."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import time, timedelta
from typing import Any

import pytest

from libs.common.errors import NotFoundError
from services.scheduler.adapters.key_ring import KeyRing
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.header_secrets import HeaderSecrets
from services.scheduler.adapters.mongo.job_store import MongoJobStore
from services.scheduler.domain.job import (
    Body,
    BodyPreset,
    Header,
    Job,
    JobState,
    OverlapPolicy,
    ResponseCheck,
    ResponsePolicy,
    Target,
    partition_of,
)
from services.scheduler.domain.schedule import Cron, Daily, MonthEnd, Monthly, OneTimeLocal, Schedule, Weekday, Weekly
from services.scheduler.testing.memory_job_store import MemoryJobStore
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.job_store import CursorMove, JobFilter, JobStore
from tests.support.scheduler_values import DAY, EVERY_MINUTE, NOW, SCOPE, a_definition, a_job, at, new_job_id, once

ALL = range(256)
OTHER_ORG = OrgScope("org-b")
EVERYTHING = JobFilter()


@pytest.fixture
def store(in_mongo: bool) -> JobStore:
    if not in_mongo:
        return MemoryJobStore()
    return a_mongo_store()


def a_mongo_store() -> MongoJobStore:
    return MongoJobStore(HeaderSecrets(KeyRing({"k1": b"k" * 32})), AuditOutbox())


async def insert(store: JobStore, *jobs: Job) -> None:
    assert not await store.insert_new(jobs)


async def read(store: JobStore, job: Job) -> Job:
    found = (await store.load([job.job_id]))[job.job_id]
    if isinstance(store, MongoJobStore):
        # What a replica remembers is what one that remembers nothing reads.
        assert (await a_mongo_store().load([job.job_id]))[job.job_id] == found
    return found


async def page(store: JobStore, where: JobFilter = EVERYTHING, after: str = "", limit: int = 50) -> list[str]:
    return [job.job_id for job in await store.find_page(SCOPE, where, after=after, limit=limit)]


@pytest.mark.parametrize(
    "rule",
    [
        once().rule,
        OneTimeLocal(NOW.replace(tzinfo=None)),
        Daily(time(9, 30)),
        Weekly((Weekday.MON, Weekday.FRI), time(9, 0)),
        Monthly(31, time(0, 5), MonthEnd.LAST_DAY),
        Cron("*/5 9-17 * * 1-5"),
    ],
    ids=lambda rule: type(rule).__name__,
)
async def test_a_job_is_read_as_it_was_written(store: JobStore, rule: object) -> None:
    definition = a_definition(
        schedule=Schedule(rule, "Europe/Berlin", NOW, NOW + 3000 * DAY, timedelta(seconds=30)),
        description="long\nlines, Grüße ☕",
        labels={"team": "billing", "a.b": ""},
        target=Target(
            "https://api.example.com:8443/v1?x=1",
            "Say {{hello}} $where",
            (Header("X-Key", "v"), Header("X-Key", "")),
            Body(BodyPreset.OPENAI_CHAT, model="gpt", max_tokens=5),
        ),
        overlap=OverlapPolicy.QUEUE_ONE,
        response=ResponsePolicy((200, 202), (ResponseCheck(json_path_equals="$.ok", json_value="true"),)),
    )
    job = a_job(definition, state_note="note", idempotency_key="key", fingerprint="f" * 64, trace_parent="00-a-b-01")
    await insert(store, job)
    assert await store.get(SCOPE, job.job_id) == job
    assert await store.load([job.job_id, "unknown"]) == {job.job_id: job}
    assert await store.find_page(SCOPE, EVERYTHING, after="", limit=5) == [job]


async def test_instants_are_kept_in_whole_milliseconds(store: JobStore) -> None:
    job = a_job(create_time=NOW + timedelta(microseconds=1999))
    await insert(store, job)
    assert (await read(store, job)).create_time == NOW + timedelta(milliseconds=1)


async def test_an_id_is_inserted_once(store: JobStore) -> None:
    job = a_job()
    await insert(store, job)
    assert await store.insert_new([replace(job, creator="somebody else")]) == {job.job_id}
    assert (await read(store, job)).creator == "tester"


async def test_an_idempotency_key_belongs_to_one_job_of_an_org(store: JobStore) -> None:
    first, foreign = a_job(idempotency_key="k"), a_job(idempotency_key="k", org_id="org-b")
    await insert(store, first, foreign, a_job(), a_job())
    second, other = a_job(idempotency_key="k"), a_job(idempotency_key="l")
    assert await store.insert_new([second, other]) == {second.job_id}
    assert await store.find_by_idempotency_keys("org-a", ["k", "l", "m"]) == {"k": first, "l": other}
    assert await store.find_by_idempotency_keys("org-b", ["k", "l"]) == {"k": foreign}
    assert await store.load([second.job_id]) == {}


async def test_a_fingerprint_is_held_by_one_job_until_it_is_given_back(store: JobStore) -> None:
    def submitted(**changes: object) -> Job:
        return a_job(fingerprint="f", duplicate_until=at(60), **changes)

    first, careless = submitted(), a_job(fingerprint="f")
    await insert(store, first, careless)
    refused = submitted()
    assert await store.insert_new([refused]) == {refused.job_id}
    assert await store.find_by_fingerprints(["f", "g"]) == {"f": first}
    # A change keeps it, and cannot move its end.
    assert await store.replace(SCOPE, replace(first, revision=2, duplicate_until=at(600)), expected=first)
    kept = await read(store, first)
    assert kept.duplicate_until == at(60)
    assert await store.replace(SCOPE, replace(kept, revision=3, duplicate_until=None), expected=kept)
    assert await store.find_by_fingerprints(["f"]) == {}
    second = submitted()
    await insert(store, second)
    await store.release_fingerprints([second.job_id, careless.job_id, "gone"])
    await insert(store, submitted())
    assert (await read(store, second)).duplicate_until is None


@pytest.mark.parametrize("same", [{"idempotency_key": "k"}, {"fingerprint": "f", "duplicate_until": at(60)}], ids=str)
async def test_of_many_equal_inserts_at_once_one_wins(store: JobStore, same: dict[str, Any]) -> None:
    refusals = await asyncio.gather(*(store.insert_new([a_job(**same)]) for _ in range(8)))
    assert sum(not refused for refused in refusals) == 1
    assert len(await store.find_page(SCOPE, EVERYTHING, after="", limit=50)) == 1


@pytest.mark.parametrize(
    "scope", [OTHER_ORG, OrgScope("org-a", frozenset({"other"})), OrgScope("org-a", frozenset())], ids=str
)
async def test_a_job_outside_the_scope_does_not_exist(store: JobStore, scope: OrgScope) -> None:
    job = a_job()
    await insert(store, job)
    with pytest.raises(NotFoundError):
        await store.get(scope, job.job_id)
    assert not await store.find_page(scope, EVERYTHING, after="", limit=5)
    assert not await store.find_page(scope, JobFilter(project_id="default"), after="", limit=5)
    assert not await store.replace(scope, replace(job, revision=2), expected=job)
    assert await read(store, job) == job


async def test_a_scope_of_projects_sees_their_jobs(store: JobStore) -> None:
    job = a_job(a_definition(project_id="p1"))
    await insert(store, job, a_job())
    scope = OrgScope("org-a", frozenset({"p1", "p2"}))
    assert await store.get(scope, job.job_id) == job
    assert await store.find_page(scope, EVERYTHING, after="", limit=5) == [job]


async def test_a_page_shows_the_newest_first_and_restricts(store: JobStore) -> None:
    plain, labeled, paused, deleted, stopped = jobs = [
        a_job(),
        a_job(a_definition(labels={"team": "x", "tier": "1"}, name="Nightly (50%)", project_id="p1")),
        a_job(state=JobState.PAUSED, next_fire_time=at(3600)),
        a_job(state=JobState.DELETED),
        a_job(a_definition(target=Target("http://b.example.com/", "p")), next_fire_time=None, next_due_time=None),
    ]
    await insert(store, *jobs)

    def ids(*jobs: Job) -> list[str]:
        return [job.job_id for job in jobs]

    assert await page(store) == ids(stopped, paused, labeled, plain)
    assert await page(store, JobFilter(states=frozenset({JobState.PAUSED, JobState.DELETED}))) == ids(deleted, paused)
    assert await page(store, JobFilter(labels={"team": "x"})) == ids(labeled)
    assert await page(store, JobFilter(labels={"team": "x", "tier": "2"})) == []
    assert await page(store, JobFilter(name_prefix="Nightly (")) == ids(labeled)
    assert await page(store, JobFilter(name_prefix="nightly")) == []
    assert await page(store, JobFilter(project_id="p1")) == ids(labeled)
    assert await page(store, JobFilter(target_host="b.example.com")) == ids(stopped)
    assert await page(store, JobFilter(next_fire_after=at(60), next_fire_before=at(61))) == ids(labeled, plain)
    assert await page(store, JobFilter(next_fire_after=at(61))) == []
    assert await page(store, JobFilter(next_fire_before=at(3600))) == ids(labeled, plain)


async def test_pages_stay_whole_while_jobs_come_and_go(store: JobStore) -> None:
    jobs = [a_job() for _ in range(9)]
    await insert(store, *jobs)
    expected = [job.job_id for job in reversed(jobs)]
    seen = await page(store, limit=3)
    # One that was shown goes, one that was not goes too, and a new one comes in front.
    await store.replace(SCOPE, replace(jobs[8], state=JobState.DELETED), expected=jobs[8])
    await store.replace(SCOPE, replace(jobs[0], state=JobState.DELETED), expected=jobs[0])
    await insert(store, a_job())
    while more := await page(store, after=seen[-1], limit=3):
        seen += more
    assert seen == expected[:-1]


async def test_replace_writes_what_changed(store: JobStore) -> None:
    job = a_job(purge_time=None)
    await insert(store, job)
    changed = replace(
        job,
        definition=a_definition(name="new", labels={"a": "b"}, project_id="p2"),
        state=JobState.DELETED,
        state_reason="DELETED_BY_CALLER",
        state_time=at(1),
        next_fire_time=None,
        next_due_time=None,
        revision=2,
        schedule_revision=2,
        update_time=at(1),
        delete_time=at(1),
        purge_time=at(100),
    )
    assert await store.replace(SCOPE, changed, expected=job)
    assert await read(store, job) == changed


@pytest.mark.parametrize(
    "stale",
    [{"revision": 9}, {"state": JobState.PAUSED}, {"next_fire_time": at(120)}, {"next_fire_time": None}],
    ids=lambda stale: next(iter(stale)),
)
async def test_replace_loses_against_any_change_since_the_read(store: JobStore, stale: dict[str, object]) -> None:
    job = a_job()
    await insert(store, job)
    assert not await store.replace(SCOPE, replace(job, revision=2), expected=replace(job, **stale))
    assert await read(store, job) == job


async def test_replace_and_tick_cannot_both_move_a_cursor(store: JobStore) -> None:
    job = a_job()
    await insert(store, job)
    move = CursorMove(job.job_id, 1, job.next_fire_time, at(120), at(120))
    paused = replace(job, state=JobState.PAUSED, revision=2)
    await store.advance([move])
    assert not await store.replace(SCOPE, paused, expected=job)
    moved = await read(store, job)
    assert await store.replace(SCOPE, replace(moved, state=JobState.PAUSED, revision=2), expected=moved)
    await store.advance([replace(move, expected=at(120), next_fire_time=at(180))])
    assert (await read(store, job)).next_fire_time == at(120)


async def test_a_moved_cursor_leaves_all_else_as_it_is(store: JobStore) -> None:
    """Whatever a text or a label is made of, a database that evaluates updates must not evaluate it."""
    definition = a_definition(
        description="$next_fire_time",
        labels={"a.b": "$$ROOT", "c": "{$literal: 1}"},
        target=Target("https://api.example.com/", "$name {$x}"),
    )
    jobs = [a_job(definition), a_job(definition)]
    await insert(store, *jobs)
    await store.advance(
        [CursorMove(job.job_id, 1, job.next_fire_time, at(n), at(n + 1)) for n, job in enumerate(jobs, 120)]
    )
    moved = [replace(job, next_fire_time=at(n), next_due_time=at(n + 1)) for n, job in enumerate(jobs, 120)]
    assert await store.load([job.job_id for job in jobs]) == {job.job_id: job for job in moved}


async def test_replace_keeps_failures_that_were_counted_meanwhile(store: JobStore) -> None:
    job = a_job()
    await insert(store, job)
    await store.count_failures({job.job_id: ["e1"]})
    assert await store.replace(SCOPE, replace(job, revision=2), expected=job)
    stored = await read(store, job)
    assert stored.consecutive_failures == 1
    assert await store.replace(SCOPE, replace(stored, revision=3, consecutive_failures=0), expected=stored)
    assert (await read(store, job)).consecutive_failures == 0
    assert await store.count_failures({job.job_id: ["e1"]}) == {job.job_id: 0}


async def test_the_tick_finds_due_active_jobs_of_its_partitions_oldest_first(store: JobStore) -> None:
    late = a_job(next_fire_time=at(-5), next_due_time=at(-4))
    soon = a_job(next_fire_time=at(1), next_due_time=at(2))
    oldest = a_job(next_fire_time=at(-60), next_due_time=at(-60), org_id="org-b")
    others = [
        a_job(next_due_time=at(2.001)),
        a_job(next_fire_time=None, next_due_time=None),
        a_job(next_due_time=at(0), state=JobState.PAUSED),
        a_job(next_due_time=at(0), state=JobState.DELETED),
    ]
    await insert(store, late, soon, oldest, *others)
    due = await store.find_due(ALL, at(2), 10)
    assert [job.cursor.job_id for job in due] == [oldest.job_id, late.job_id, soon.job_id]
    assert [job.cursor.job_id for job in await store.find_due(ALL, at(2), 2)] == [oldest.job_id, late.job_id]
    mine = await store.find_due({late.partition}, at(2), 10)
    assert [job.cursor.job_id for job in mine] == [
        job.job_id for job in (oldest, late, soon) if job.partition == late.partition
    ]
    assert not await store.find_due(set(ALL) - {job.partition for job in (late, soon, oldest)}, at(2), 10)


async def test_a_due_job_tells_the_tick_what_it_needs(store: JobStore) -> None:
    recurring = a_job(a_definition(project_id="p1"), revision=4, schedule_revision=3, trace_parent="t")
    one_time = a_job(a_definition(schedule=once(at(120))))
    overlapping = a_job(a_definition(overlap=OverlapPolicy.ALLOW), created=at(120))
    await insert(store, recurring, one_time, overlapping)
    first, second, third = await store.find_due(ALL, at(600), 10)
    assert (first.cursor.schedule, first.cursor.next_fire_time) == (EVERY_MINUTE, recurring.next_fire_time)
    assert first.cursor.catch_up == recurring.definition.catch_up
    assert (first.org_id, first.project_id, first.partition) == ("org-a", "p1", recurring.partition)
    assert (first.revision, first.schedule_revision, first.trace_parent) == (4, 3, "t")
    assert (first.exclusive, second.exclusive, third.exclusive) == (True, False, False)


async def test_cursors_move_once_however_often_it_is_said(store: JobStore) -> None:
    jobs = [a_job(a_definition(schedule=once())) for _ in range(3)]
    other = a_job()
    await insert(store, *jobs, other)
    # Three share one whole move, one has its own.
    moves = [CursorMove(job.job_id, 1, NOW, None, None) for job in jobs]
    moves.append(CursorMove(other.job_id, 1, at(60), at(120), at(121)))
    await store.advance(moves)
    await store.advance(moves)
    assert [(await read(store, job)).next_fire_time for job in jobs] == [None, None, None]
    moved = await read(store, other)
    assert (moved.next_fire_time, moved.next_due_time, moved.revision) == (at(120), at(121), 1)


@pytest.mark.parametrize(
    "changes", [{"schedule_revision": 2}, {"state": JobState.PAUSED}, {"next_fire_time": at(120)}], ids=str
)
async def test_a_stale_move_changes_nothing(store: JobStore, changes: dict[str, object]) -> None:
    job = a_job(**changes)
    await insert(store, job)
    await store.advance([CursorMove(job.job_id, 1, at(60), at(180), at(180)), CursorMove("gone", 1, NOW, None, None)])
    assert await read(store, job) == job


async def test_only_active_jobs_without_a_further_fire_are_completed(store: JobStore) -> None:
    done = a_job(next_fire_time=None, next_due_time=None)
    others = [a_job(), replace(done, job_id="paused", state=JobState.PAUSED)]
    await insert(store, done, *others)
    await store.complete({job.job_id for job in (done, *others)} | {"gone"}, at(5))
    completed = await read(store, done)
    assert (completed.state, completed.state_time) == (JobState.COMPLETED, at(5))
    assert [await read(store, job) for job in others] == others


async def test_a_failure_counts_once_and_a_success_resets(store: JobStore) -> None:
    job, other = a_job(), a_job()
    await insert(store, job, other)
    assert await store.count_failures({job.job_id: ["e1", "e2", "e1"], other.job_id: ["f1"]}) == {
        job.job_id: 2,
        other.job_id: 1,
    }
    assert await store.count_failures({job.job_id: ["e2", "e3"]}) == {job.job_id: 3}
    await store.reset_failures({job.job_id, "gone"})
    assert (await read(store, job)).consecutive_failures == 0
    assert await store.count_failures({job.job_id: ["e3"]}) == {job.job_id: 0}
    assert await store.count_failures({job.job_id: ["e4"], "gone": ["e1"]}) == {job.job_id: 1}


async def test_failures_counted_at_once_all_count(store: JobStore) -> None:
    job = a_job()
    await insert(store, job)
    counts = await asyncio.gather(*(store.count_failures({job.job_id: [f"e{n % 4}"]}) for n in range(8)))
    assert max(count[job.job_id] for count in counts) == 4
    assert (await read(store, job)).consecutive_failures == 4


async def test_what_ended_before_a_job_was_resumed_does_not_stop_it(store: JobStore) -> None:
    job = a_job(state_time=at(10))
    await insert(store, job)
    assert not await store.stop(job.job_id, JobState.PAUSED, "r", "n", at(20), ended=at(9.999))
    assert (await read(store, job)) == job
    assert await store.stop(job.job_id, JobState.PAUSED, "r", "n", at(20), ended=at(10))
    never_changed = a_job()
    await insert(store, never_changed)
    assert await store.stop(never_changed.job_id, JobState.PAUSED, "r", "n", at(20), ended=at(-5))


async def test_a_job_is_stopped_once(store: JobStore) -> None:
    job = a_job()
    await insert(store, job)
    results = await asyncio.gather(
        *(store.stop(job.job_id, JobState.FAILED, "CONSECUTIVE_FAILURES", f"n{n}", at(1)) for n in range(4))
    )
    assert sorted(results) == [False, False, False, True]
    stopped = await read(store, job)
    assert (stopped.state, stopped.state_reason, stopped.state_time) == (JobState.FAILED, "CONSECUTIVE_FAILURES", at(1))
    assert (stopped.revision, stopped.next_fire_time) == (2, job.next_fire_time)
    assert not await store.stop("gone", JobState.FAILED, "r", "n", NOW)


async def test_orphans_are_active_jobs_without_a_further_fire_that_nobody_touched(store: JobStore) -> None:
    orphan = a_job(next_fire_time=None, next_due_time=None, update_time=at(-61))
    await insert(
        store,
        orphan,
        a_job(update_time=at(-61)),
        replace(orphan, job_id="young", update_time=at(-60)),
        replace(orphan, job_id="completed", state=JobState.COMPLETED),
    )
    assert await store.find_orphaned(at(-60), 10) == [orphan.job_id]
    assert await store.find_orphaned(at(-60), 1) == [orphan.job_id]
    assert await store.find_orphaned(at(-61), 10) == []


async def test_orphans_are_found_from_a_partition_on(store: JobStore) -> None:
    orphan = a_job(next_fire_time=None, next_due_time=None, update_time=at(-61))
    others = [replace(orphan, job_id=new_job_id()) for _ in range(5)]
    await insert(store, orphan, *others)
    ordered = sorted([orphan, *others], key=lambda job: job.partition)
    found = await store.find_orphaned(at(-60), 10)
    assert [partition_of(job_id) for job_id in found] == [job.partition for job in ordered]
    assert await store.find_orphaned(at(-60), 2, skip=1) == found[1:3]
    assert await store.find_orphaned(at(-60), 9, skip=6) == []
    last = partition_of(found[-1])
    assert await store.find_orphaned(at(-60), 10, partition=last) == [i for i in found if partition_of(i) == last]
    assert await store.find_orphaned(at(-60), 10, partition=last + 1) == []


async def test_due_jobs_are_also_found_from_an_instant_on_and_without_those_of_some_orgs(store: JobStore) -> None:
    first, second, third = (
        a_job(org_id=org, next_fire_time=at(n), next_due_time=at(n))
        for n, org in enumerate(("org-a", "org-b", "org-c"))
    )
    await insert(store, first, second, third)

    async def found(**where: Any) -> list[str]:
        return [job.cursor.job_id for job in await store.find_due(ALL, at(2), 10, **where)]

    assert await found(since=at(0)) == [second.job_id, third.job_id]
    assert await found(without_orgs=["org-b"]) == [first.job_id, third.job_id]
    assert await found(since=at(0), without_orgs={"org-b", "org-x"}) == [third.job_id]


async def test_jobs_exist_or_do_not(store: JobStore) -> None:
    job = a_job(state=JobState.DELETED)
    await insert(store, job)
    assert await store.find_existing([job.job_id, "gone"]) == {job.job_id}


async def test_names_are_matched_as_text(store: JobStore) -> None:
    job = a_job(a_definition(name=".*+"))
    await insert(store, job, a_job(a_definition(name="anything")))
    assert await page(store, JobFilter(name_prefix=".*")) == [job.job_id]


async def test_a_due_time_after_its_fire_time_is_what_the_tick_asks_for(store: JobStore) -> None:
    job = a_job(next_fire_time=at(0), next_due_time=at(30))
    await insert(store, job)
    assert not await store.find_due(ALL, at(29.999), 10)
    assert len(await store.find_due(ALL, at(30), 10)) == 1
