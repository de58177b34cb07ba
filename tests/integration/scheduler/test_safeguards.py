"""Encryption at rest, the audit's way into its collection, signing secrets, limits and usage, on a real MongoDB."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.asynchronous.database import AsyncDatabase

from libs.common.clock import SystemClock
from libs.common.errors import FailedPreconditionError
from libs.common.ids import new_id_at
from libs.common.testing.fake_clock import FakeClock
from services.scheduler.adapters.audit_trail import audit_trail
from services.scheduler.adapters.key_ring import KeyRing
from services.scheduler.adapters.mongo.api_key_store import MongoApiKeyStore
from services.scheduler.adapters.mongo.audit_log import MongoAuditLog
from services.scheduler.adapters.mongo.audit_outbox import OUTBOX, AuditOutbox, AuditRelay
from services.scheduler.adapters.mongo.connection import open_client
from services.scheduler.adapters.mongo.documents import WITH_OUTBOX, AuditEventDocument, RequestLimitDocument
from services.scheduler.adapters.mongo.execution_store import MongoExecutionStore
from services.scheduler.adapters.mongo.header_secrets import HeaderSecrets
from services.scheduler.adapters.mongo.job_store import MongoJobStore
from services.scheduler.adapters.mongo.key_rotation import KeyRotation, count_by_key, require_keys
from services.scheduler.adapters.mongo.limit_windows import SharedWindows
from services.scheduler.adapters.mongo.migrations import bind_documents, migrate
from services.scheduler.adapters.mongo.org_store import CACHE_SECONDS, MongoOrgStore
from services.scheduler.adapters.mongo.org_usage import MongoOrgUsage
from services.scheduler.adapters.mongo.signing_secret_store import MongoSigningSecretStore
from services.scheduler.admin import main as admin
from services.scheduler.domain.api_key import ApiKey
from services.scheduler.domain.job import Header, Job, JobState
from services.scheduler.domain.org import OrgSettings
from services.scheduler.domain.signing_secret import decode_secret
from services.scheduler.usecases.audit import AuditEvent, AuditFilter
from services.scheduler.usecases.caller import Caller, OrgScope
from services.scheduler.usecases.signing_secrets import ManageSigningSecrets
from tests.support.scheduler_values import NOW, a_definition, a_job, a_manual_execution

ACME = OrgScope("acme")
CALLER = Caller("pk_1", ACME, frozenset(), method="SigningSecretService.RotateSigningSecret")
OLD, NEW = KeyRing({"k1": b"1" * 32}), KeyRing({"k2": b"2" * 32, "k1": b"1" * 32})
SECRET = "Bearer s3cret-canary"
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def migrated(mongo_uri: str, mongo_janitor: MongoClient[dict[str, Any]]) -> Iterator[str]:
    """The name of a database with all indexes; each test leaves it empty."""
    name = f"test_safeguards_{uuid.uuid4().hex}"

    async def prepare() -> None:
        client = open_client(mongo_uri)
        await migrate(client[name])
        await client.close()

    asyncio.run(prepare())
    yield name
    mongo_janitor.drop_database(name)


@pytest.fixture
async def database(
    mongo_uri: str, migrated: str, mongo_janitor: MongoClient[dict[str, Any]]
) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    client = open_client(mongo_uri)
    await bind_documents(client[migrated])
    yield client[migrated]
    await client.close()
    for collection in mongo_janitor[migrated].list_collection_names():
        mongo_janitor[migrated][collection].delete_many({})


def secret_job(**changes: Any) -> Job:
    definition = a_definition()
    headers = (Header("Authorization", SECRET, sensitive=True), Header("x-team", "blue"))
    target = replace(definition.target, headers=headers)
    return a_job(definition=replace(definition, target=target), org_id="acme", **changes)


def job_store(ring: KeyRing, outbox: AuditOutbox | None = None) -> MongoJobStore:
    return MongoJobStore(HeaderSecrets(ring), outbox or AuditOutbox())


def event(job: Job, method: str = "JobService.CreateJob", seconds: float = 0) -> AuditEvent:
    when = NOW + timedelta(seconds=seconds)
    return AuditEvent(new_id_at(when), when, job.org_id, "pk_1", method, "job", job.job_id, "default")


def relay(outbox: AuditOutbox) -> AuditRelay:
    sources = [document.get_pymongo_collection() for document in WITH_OUTBOX]
    return AuditRelay(outbox, sources, AuditEventDocument.get_pymongo_collection(), SystemClock(), YEAR)


EVERYTHING = AuditFilter()


async def methods(log: MongoAuditLog, where: AuditFilter = EVERYTHING, after: str = "", limit: int = 10) -> list[str]:
    return [found.method for found in await log.find_page(ACME, where, after=after, limit=limit)]


class TestSecretsAtRest:
    async def test_a_secret_is_stored_sealed_read_sealed_and_opened_for_a_grant(self, database) -> None:
        job = secret_job()
        store = job_store(OLD)
        await store.insert_new([job])
        assert SECRET not in str(await database.jobs.find_one())
        read = await store.get(ACME, job.job_id)
        header = read.definition.target.headers[0]
        assert (header.value, header.sealed.partition(".")[0]) == ("", "k1")
        opened = HeaderSecrets(OLD).open((await store.load([job.job_id]))[job.job_id])
        assert opened is not None
        assert opened.definition.target.headers == job.definition.target.headers

    async def test_a_write_without_the_key_in_hand_keeps_the_secret(self, database) -> None:
        job = secret_job()
        store = job_store(OLD)
        await store.insert_new([job])
        read = await store.get(ACME, job.job_id)
        assert await store.replace(ACME, replace(read, state=JobState.PAUSED, revision=2), expected=read)
        opened = HeaderSecrets(OLD).open(await store.get(ACME, job.job_id))
        assert opened is not None
        assert opened.definition.target.headers[0].value == SECRET

    async def test_a_removed_secret_needs_no_key_any_more(self, database) -> None:
        job = secret_job()
        store = job_store(OLD)
        await store.insert_new([job])
        read = await store.get(ACME, job.job_id)
        bare = replace(read.definition, target=replace(read.definition.target, headers=()))
        assert await store.replace(ACME, replace(read, definition=bare, revision=2), expected=read)
        assert await count_by_key() == {"jobs": {}, "signing_secrets": {}}

    async def test_a_value_copied_to_another_job_does_not_open(self, database) -> None:
        mine, other = secret_job(), secret_job()
        store = job_store(OLD)
        await store.insert_new([mine, other])
        stolen = await database.jobs.find_one({"_id": mine.job_id})
        headers = stolen["definition"]["target"]["headers"]
        await database.jobs.update_one({"_id": other.job_id}, {"$set": {"definition.target.headers": headers}})
        assert HeaderSecrets(OLD).open(await store.get(ACME, other.job_id)) is None

    async def test_rotation_moves_everything_to_the_new_key(self, database) -> None:
        jobs = [secret_job() for _ in range(5)]
        await job_store(OLD).insert_new(jobs)
        await ManageSigningSecrets(signing_store(OLD), SystemClock()).rotate(CALLER, timedelta(0))
        assert await count_by_key() == {"jobs": {"k1": 5}, "signing_secrets": {"k1": 1}}
        before = await signing_store(OLD).load(["acme"])
        rotation = KeyRotation(NEW, HeaderSecrets(NEW), signing_store(NEW))
        assert await rotation.run_once() == 6
        assert await rotation.run_once() == 0
        assert await count_by_key() == {"jobs": {"k2": 5}, "signing_secrets": {"k2": 1}}
        only_new = KeyRing({"k2": b"2" * 32})
        opened = HeaderSecrets(only_new).open(await job_store(only_new).get(ACME, jobs[0].job_id))
        assert opened is not None
        assert opened.definition.target.headers[0].value == SECRET
        assert opened.revision == jobs[0].revision
        assert await signing_store(only_new).load(["acme"]) == before

    async def test_rotation_loses_against_a_change_and_finds_it_again(self, database) -> None:
        job = secret_job()
        old_replica = job_store(OLD)
        await old_replica.insert_new([job])
        read = await old_replica.get(ACME, job.job_id)
        rotation = KeyRotation(NEW, HeaderSecrets(NEW), signing_store(NEW))
        assert await rotation.run_once() == 1
        # It had read before the rotation, and writes what it read.
        assert await old_replica.replace(ACME, replace(read, state=JobState.PAUSED, revision=2), expected=read)
        assert (await count_by_key())["jobs"] == {"k1": 1}
        assert await rotation.run_once() == 1
        assert (await count_by_key())["jobs"] == {"k2": 1}

    async def test_what_does_not_open_is_passed_over_once(self, database) -> None:
        good, bad = secret_job(), secret_job()
        await job_store(OLD).insert_new([good, bad])
        await database.jobs.update_one({"_id": bad.job_id}, {"$set": {"definition.target.headers.0.sealed": "k1.AAAA"}})
        rotation = KeyRotation(NEW, HeaderSecrets(NEW), signing_store(NEW))
        assert [await rotation.run_once(), await rotation.run_once()] == [1, 0]

    async def test_the_operator_is_told_what_each_key_is_needed_for(
        self, database, mongo_uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await job_store(OLD).insert_new([secret_job(), secret_job()])
        monkeypatch.setenv("PUNCTUAL_MONGODB_URI", mongo_uri)
        monkeypatch.setenv("PUNCTUAL_MONGODB_DATABASE", database.name)
        # The command has an event loop of its own.
        assert await asyncio.to_thread(admin, ["key-status"]) == 0
        assert capsys.readouterr().out == "k1\tjobs\t2\n"

    async def test_serving_without_a_needed_key_is_refused(self, database) -> None:
        await job_store(OLD).insert_new([secret_job()])
        await require_keys(NEW)
        with pytest.raises(FailedPreconditionError, match="'k1'"):
            await require_keys(KeyRing({"k2": b"2" * 32}))


class TestAudit:
    async def test_the_event_is_in_the_very_document_of_its_change(self, database) -> None:
        outbox = AuditOutbox()
        job = secret_job()
        await job_store(OLD, outbox).insert_new([job], audits=[event(job)])
        stored = await database.jobs.find_one()
        assert [held["method"] for held in stored[OUTBOX]] == ["JobService.CreateJob"]
        assert await database.audit_events.count_documents({}) == 0

    async def test_a_lost_compare_and_set_leaves_no_event(self, database) -> None:
        outbox = AuditOutbox()
        job = secret_job()
        store = job_store(OLD, outbox)
        await store.insert_new([job])
        with audit_trail() as trail:
            stale = replace(job, revision=7)
            assert not await store.replace(ACME, job, expected=stale, audit=event(job))
            assert not trail.has_event
        assert await methods(MongoAuditLog(relay(outbox), YEAR)) == []

    async def test_a_refused_insert_leaves_no_event(self, database) -> None:
        outbox = AuditOutbox()
        first = secret_job(idempotency_key="once")
        second = replace(secret_job(), idempotency_key="once")
        store = job_store(OLD, outbox)
        await store.insert_new([first], audits=[event(first)])
        refused = await store.insert_new([second], audits=[event(second)])
        assert refused == {second.job_id}
        assert len(await methods(MongoAuditLog(relay(outbox), YEAR))) == 1

    async def test_the_relay_copies_once_and_leaves_the_outbox_index_empty(self, database) -> None:
        outbox = AuditOutbox()
        jobs = [secret_job() for _ in range(20)]
        await job_store(OLD, outbox).insert_new(jobs, audits=[event(job) for job in jobs])
        assert await relay(outbox).relay() == 20
        assert await relay(outbox).relay() == 0
        assert await database.jobs.count_documents({OUTBOX: {"$exists": True}}) == 0
        assert await database.audit_events.count_documents({}) == 20
        kept = await database.audit_events.find_one()
        assert kept["expire_time"] - kept["event_time"] == YEAR

    async def test_a_copy_that_was_not_removed_is_repeated_without_a_double(self, database) -> None:
        outbox = AuditOutbox()
        job = secret_job()
        await job_store(OLD, outbox).insert_new([job], audits=[event(job)])
        held = (await database.jobs.find_one())[OUTBOX][0]
        # As if the relay had died between copy and removal.
        await database.audit_events.insert_one({**held, "expire_time": held["event_time"] + YEAR})
        assert await relay(outbox).relay() == 1
        assert await database.audit_events.count_documents({}) == 1
        assert await database.jobs.count_documents({OUTBOX: {"$exists": True}}) == 0

    async def test_an_event_that_comes_during_the_copy_stays(self, database) -> None:
        outbox = AuditOutbox()
        job = secret_job()
        store = job_store(OLD, outbox)
        await store.insert_new([job], audits=[event(job)])
        log = MongoAuditLog(relay(outbox), YEAR)
        late = replace(event(job, "JobService.PauseJob", seconds=1))

        class Meanwhile(AuditRelay):
            async def _copy(self, events: Sequence[Any]) -> None:
                await super()._copy(events)
                if len(events) == 1 and events[0]["method"] == "JobService.CreateJob":
                    assert await store.replace(ACME, replace(job, revision=2), expected=job, audit=late)

        sources = [document.get_pymongo_collection() for document in WITH_OUTBOX]
        events = AuditEventDocument.get_pymongo_collection()
        await Meanwhile(outbox, sources, events, SystemClock(), YEAR).relay()
        assert await methods(log) == ["JobService.PauseJob", "JobService.CreateJob"]
        assert await database.jobs.count_documents({OUTBOX: {"$exists": True}}) == 0

    async def test_run_once_works_when_this_replica_wrote_or_a_sweep_is_due(self, database) -> None:
        outbox, other, clock = AuditOutbox(), AuditOutbox(), FakeClock()
        sources = [document.get_pymongo_collection() for document in WITH_OUTBOX]
        mine = AuditRelay(outbox, sources, AuditEventDocument.get_pymongo_collection(), clock, YEAR)
        await mine.run_once()
        job = secret_job()
        await job_store(OLD, other).insert_new([job], audits=[event(job)])
        assert await mine.run_once() == 0
        await clock.advance(30)
        assert await mine.run_once() == 1
        job = secret_job()
        await job_store(OLD, outbox).insert_new([job], audits=[event(job)])
        assert await mine.run_once() == 1

    async def test_lists_are_filtered_and_paged_newest_first(self, database) -> None:
        outbox = AuditOutbox()
        log = MongoAuditLog(relay(outbox), YEAR)
        job, other = secret_job(), secret_job()
        for number in range(5):
            await log.record(event(job, f"m{number}", seconds=number))
        await log.record(replace(event(other, "other", seconds=9), actor="pk_2", object_type="api_key"))
        await log.record(replace(event(job, "foreign"), org_id="evil"))
        assert await methods(log) == ["other", "m4", "m3", "m2", "m1", "m0"]
        first = await log.find_page(ACME, AuditFilter(), after="", limit=2)
        assert await methods(log, after=first[-1].event_id, limit=2) == ["m3", "m2"]
        assert await methods(log, AuditFilter(object_id=other.job_id)) == ["other"]
        assert await methods(log, AuditFilter(actor="pk_1", method="m2")) == ["m2"]
        assert await methods(log, AuditFilter(object_type="api_key")) == ["other"]
        window = AuditFilter(event_after=NOW + timedelta(seconds=1), event_before=NOW + timedelta(seconds=3))
        assert await methods(log, window) == ["m2", "m1"]

    async def test_a_project_limited_scope_sees_its_projects_only(self, database) -> None:
        log = MongoAuditLog(relay(AuditOutbox()), YEAR)
        await log.record(event(secret_job()))
        scope = OrgScope("acme", frozenset({"other"}))
        assert not await log.find_page(scope, AuditFilter(), after="", limit=9)

    async def test_events_of_all_collections_are_found(self, database) -> None:
        outbox, clock = AuditOutbox(), SystemClock()
        manage = ManageSigningSecrets(signing_store(OLD, outbox), clock)
        created = await manage.rotate(CALLER, timedelta(0))
        await manage.revoke(CALLER, created.secret_id)
        store = MongoOrgStore(DEFAULTS, outbox, clock)
        changed = replace(await store.get("acme"), max_jobs=5)
        assert await store.replace(changed, ["max_jobs"], audit=event(secret_job(), "OrgService.UpdateOrgSettings"))
        assert len(await methods(MongoAuditLog(relay(outbox), YEAR))) == 3

    async def test_events_of_keys_and_executions_are_found(self, database) -> None:
        outbox = AuditOutbox()
        job = secret_job()
        manual = a_manual_execution(job)
        executions = MongoExecutionStore(YEAR, outbox)
        await executions.insert_new([manual], audit=event(job, "JobService.RunJob"))
        await executions.insert_new([manual], audit=event(job, "repeated"))
        key = ApiKey("pk_1", "acme", "k", b"hash", frozenset({"jobs.read"}), NOW, "alice")
        keys = MongoApiKeyStore(outbox)
        await keys.insert(key, audit=event(job, "ApiKeyService.CreateApiKey", seconds=1))
        for _ in range(2):
            await keys.revoke(ACME, "pk_1", NOW, audit=event(job, "ApiKeyService.RevokeApiKey", seconds=2))
        assert await methods(MongoAuditLog(relay(outbox), YEAR)) == [
            "ApiKeyService.RevokeApiKey",
            "ApiKeyService.CreateApiKey",
            "JobService.RunJob",
        ]


DEFAULTS = OrgSettings("", max_jobs=100, max_stored_bytes=1000, max_creates_per_minute=10)


def signing_store(ring: KeyRing, outbox: AuditOutbox | None = None, clock: Any = None) -> MongoSigningSecretStore:
    return MongoSigningSecretStore(ring, outbox or AuditOutbox(), clock or SystemClock())


class TestSigningSecrets:
    async def test_keys_of_live_secrets_are_handed_out_newest_first(self, database) -> None:
        store, clock = signing_store(OLD), SystemClock()
        manage = ManageSigningSecrets(store, clock)
        first = await manage.rotate(CALLER, timedelta(hours=1))
        second = await manage.rotate(CALLER, timedelta(hours=1))
        stored = str(await database.signing_secrets.find_one())
        for secret in (first, second):
            assert secret.value not in stored
            assert secret.value.removeprefix("whsec_") not in stored
        assert await store.load(["acme", "other"]) == {
            "acme": [decode_secret(second.value), decode_secret(first.value)]
        }
        assert [secret.secret_id for secret in await manage.list(CALLER)] == [second.secret_id, first.secret_id]

    async def test_another_replica_notices_a_revocation_within_its_cache(self, database) -> None:
        clock = FakeClock(NOW)
        here, there = signing_store(OLD, clock=clock), signing_store(OLD, clock=clock)
        secret = await ManageSigningSecrets(here, clock).rotate(CALLER, timedelta(0))
        assert await there.load(["acme"])
        await ManageSigningSecrets(here, clock).revoke(CALLER, secret.secret_id)
        assert not await here.load(["acme"])
        await clock.advance(5)
        assert not await there.load(["acme"])

    async def test_an_ending_secret_stops_to_sign_at_its_time_in_spite_of_the_cache(self, database) -> None:
        clock = FakeClock(NOW)
        store = signing_store(OLD, clock=clock)
        manage = ManageSigningSecrets(store, clock)
        await manage.rotate(CALLER, timedelta(0))
        await manage.rotate(CALLER, timedelta(seconds=3))
        assert len((await store.load(["acme"]))["acme"]) == 2
        await clock.advance(3)
        assert len((await store.load(["acme"]))["acme"]) == 1

    async def test_rotations_at_once_leave_at_most_two_live(self, database) -> None:
        store = signing_store(OLD)
        manage = ManageSigningSecrets(store, SystemClock())
        results = await asyncio.gather(
            *(manage.rotate(CALLER, timedelta(hours=1)) for _ in range(8)), return_exceptions=True
        )
        made = [result for result in results if not isinstance(result, Exception)]
        assert len(made) == len(await manage.list(CALLER)) == 2
        assert all(isinstance(r, FailedPreconditionError) for r in results if isinstance(r, Exception))


class TestLimitsAndUsage:
    async def test_replicas_share_a_window_exactly(self, database) -> None:
        collection = RequestLimitDocument.get_pymongo_collection()
        replicas = [SharedWindows(collection) for _ in range(3)]
        taken = await asyncio.gather(*(replicas[n % 3].take("creates/acme", 10, 1) for n in range(30)))
        assert sum(taken) == 10
        assert await replicas[0].take("creates/other", 10, 1)

    async def test_a_refused_batch_leaves_room_for_a_smaller_one(self, database) -> None:
        windows = SharedWindows(RequestLimitDocument.get_pymongo_collection())
        assert await windows.take("batch/acme", 100, 70)
        assert not await windows.take("batch/acme", 100, 40)
        assert await windows.take("batch/acme", 100, 30)

    async def test_a_window_ends_after_a_minute_and_begins_anew(self, database) -> None:
        collection = RequestLimitDocument.get_pymongo_collection()
        windows = SharedWindows(collection)
        assert await windows.take("creates/acme", 1, 1)
        left = await windows.end_time("creates/acme", 1) - SystemClock().now()
        assert timedelta(seconds=50) < left <= timedelta(seconds=61)
        assert not await windows.take("creates/acme", 1, 1)
        # The window's end is the server's clock's; the test moves the window instead.
        await collection.update_many({}, [{"$set": {"expire_time": "$$NOW"}}])
        assert await windows.take("creates/acme", 1, 1)

    async def test_org_settings_hold_what_was_written_over_the_defaults(self, database) -> None:
        clock = FakeClock(NOW)
        store, replica = (MongoOrgStore(DEFAULTS, AuditOutbox(), clock) for _ in range(2))
        assert await replica.read("acme") == replace(DEFAULTS, org_id="acme")
        wanted = replace(await store.get("acme"), max_jobs=5, min_interval=timedelta(minutes=5))
        assert await store.replace(wanted, ["max_jobs", "min_interval"])
        assert not await replica.replace(wanted, ["max_jobs"])
        found = await store.read("acme")
        assert (found.max_jobs, found.min_interval, found.max_stored_bytes) == (5, timedelta(minutes=5), 1000)
        assert (await replica.read("acme")).max_jobs == 5
        await clock.advance(CACHE_SECONDS)
        assert (await replica.read("acme")).version == 1

    async def test_jobs_are_counted_without_the_deleted_ones(self, database) -> None:
        clock = FakeClock(NOW)
        usage = MongoOrgUsage(MongoOrgStore(DEFAULTS, AuditOutbox(), clock), clock, timedelta(days=1))
        jobs = [secret_job() for _ in range(3)]
        await job_store(OLD).insert_new([*jobs, secret_job(state=JobState.DELETED)])
        assert await usage.job_count("acme", 60) == 3
        usage.add_jobs("acme", 2)
        assert await usage.job_count("acme", 60) == 5
        await clock.advance(6)
        assert await usage.job_count("acme", 5) == 3

    async def test_stored_bytes_are_summed_by_day_and_expire_with_it(self, database) -> None:
        clock = FakeClock(NOW)
        usage = MongoOrgUsage(MongoOrgStore(DEFAULTS, AuditOutbox(), clock), clock, timedelta(days=1))
        for _ in range(3):
            usage.add_answer("acme", 300, NOW)
        usage.add_answer("acme", 200, NOW + timedelta(days=8))
        usage.add_answer("other", 1, NOW)
        assert await usage.flush() == 2
        assert await usage.stored_bytes("acme") == 1100
        assert (usage.is_full("acme"), usage.is_full("other")) == (True, False)
        await clock.advance(3 * 86_400)
        assert await usage.stored_bytes("acme") == 200
        await usage.flush()
        assert not usage.is_full("acme")
