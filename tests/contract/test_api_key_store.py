"""What every API key store promises, the fake and the real one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from libs.common.errors import NotFoundError
from services.scheduler.adapters.mongo.api_key_store import MongoApiKeyStore
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.domain.api_key import ApiKey, hash_secret
from services.scheduler.testing.memory_api_key_store import MemoryApiKeyStore
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.api_key_store import ApiKeyStore

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ACME = OrgScope("acme")


@pytest.fixture
def store(in_mongo: bool) -> ApiKeyStore:
    return MongoApiKeyStore(AuditOutbox()) if in_mongo else MemoryApiKeyStore()


def key(number: int, org_id: str = "acme", project_ids: frozenset[str] | None = None) -> ApiKey:
    return ApiKey(
        key_id=f"pk_{number}",
        org_id=org_id,
        name="ci",
        secret_hash=hash_secret("s"),
        scopes=frozenset({"jobs.read", "jobs.write"}),
        create_time=NOW,
        creator="ana",
        project_ids=project_ids,
        expire_time=NOW + timedelta(days=1),
    )


async def test_key_comes_back_as_it_was_stored(store: ApiKeyStore) -> None:
    for stored in (key(1), key(2, project_ids=frozenset({"a", "b"})), key(3, project_ids=frozenset())):
        await store.insert(stored)
        assert await store.find(stored.key_id) == stored
    assert await store.find("pk_9") is None


async def test_list_is_newest_first_in_pages_of_one_org(store: ApiKeyStore) -> None:
    for number in (1, 2, 3):
        await store.insert(key(number))
    await store.insert(key(4, org_id="other"))
    first = await store.find_page(ACME, show_revoked=False, after="", limit=2)
    rest = await store.find_page(ACME, show_revoked=False, after=first[-1].key_id, limit=2)
    assert [found.key_id for found in (*first, *rest)] == ["pk_3", "pk_2", "pk_1"]


async def test_project_limited_scope_sees_only_keys_within_it(store: ApiKeyStore) -> None:
    await store.insert(key(1))
    await store.insert(key(2, project_ids=frozenset({"a"})))
    await store.insert(key(3, project_ids=frozenset({"a", "b"})))
    limited = OrgScope("acme", frozenset({"a", "c"}))
    assert [found.key_id for found in await store.find_page(limited, show_revoked=True, after="", limit=9)] == ["pk_2"]
    for hidden in ("pk_1", "pk_3"):
        with pytest.raises(NotFoundError):
            await store.revoke(limited, hidden, NOW)


async def test_first_revocation_counts(store: ApiKeyStore) -> None:
    await store.insert(key(1))
    await store.insert(key(2))
    assert (await store.revoke(ACME, "pk_1", NOW)).revoke_time == NOW
    assert (await store.revoke(ACME, "pk_1", NOW + timedelta(hours=1))).revoke_time == NOW
    shown = await store.find_page(ACME, show_revoked=False, after="", limit=9)
    with_revoked = await store.find_page(ACME, show_revoked=True, after="", limit=9)
    assert ([found.key_id for found in shown], len(with_revoked)) == (["pk_2"], 2)


async def test_key_of_another_org_is_not_there(store: ApiKeyStore) -> None:
    await store.insert(key(1))
    with pytest.raises(NotFoundError):
        await store.revoke(OrgScope("other"), "pk_1", NOW)
    found = await store.find("pk_1")
    assert found is not None
    assert found.revoke_time is None
