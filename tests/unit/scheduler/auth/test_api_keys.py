"""API keys: their form, who may make which, and how long a revoked one may still work."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from libs.common.errors import InvalidArgumentError, PermissionDeniedError, UnauthenticatedError
from libs.common.testing.fake_clock import FakeClock
from services.scheduler.domain.api_key import parse_token
from services.scheduler.testing.memory_api_key_store import MemoryApiKeyStore
from services.scheduler.usecases import verify_api_key
from services.scheduler.usecases.api_keys import CreateApiKey, CreatedApiKey, NewApiKey
from services.scheduler.usecases.caller import Caller, OrgScope, Permission
from services.scheduler.usecases.verify_api_key import VerifyApiKey

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CACHE_SECONDS = 5.0
ADMIN = Caller("ana", OrgScope("acme"), frozenset(Permission))
WANTED = NewApiKey("ci", frozenset({"jobs.read"}))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def store() -> MemoryApiKeyStore:
    return MemoryApiKeyStore()


@pytest.fixture
def create(store: MemoryApiKeyStore, clock: FakeClock) -> CreateApiKey:
    return CreateApiKey(store, clock)


@pytest.fixture
def verify(store: MemoryApiKeyStore, clock: FakeClock) -> VerifyApiKey:
    return VerifyApiKey(store, clock, cache_seconds=CACHE_SECONDS)


async def reason_of_refusal(verify: VerifyApiKey, token: str) -> str:
    with pytest.raises(UnauthenticatedError) as raised:
        await verify.verify(token)
    assert token not in str(raised.value)
    return raised.value.reason


def forged(created: CreatedApiKey) -> str:
    return created.token[:-1] + ("A" if created.token[-1] != "A" else "B")


async def test_token_is_key_id_dot_secret_and_only_its_hash_is_stored(create: CreateApiKey) -> None:
    created = await create(ADMIN, WANTED)
    parts = parse_token(created.token)
    assert parts is not None
    assert (parts[0], len(parts[1])) == (created.key.key_id, 43)
    assert parts[1] not in repr(created.key)
    assert (created.key.org_id, created.key.creator, created.key.create_time) == ("acme", "ana", NOW)


@pytest.mark.parametrize("text", ["", "pk_", "pk_01.x", "eyJ.eyJ.sig", "pk_" + "0" * 26 + "." + "a" * 42])
def test_other_text_is_no_token(text: str) -> None:
    assert parse_token(text) is None


async def test_owner_is_known_by_the_key(create: CreateApiKey, verify: VerifyApiKey) -> None:
    created = await create(ADMIN, replace(WANTED, project_ids=frozenset({"a"})))
    assert await verify.verify(created.token) == Caller(
        created.key.key_id, OrgScope("acme", frozenset({"a"})), frozenset({"jobs.read"})
    )


async def test_wrong_secret_is_refused_also_while_the_right_one_is_cached(
    create: CreateApiKey, verify: VerifyApiKey
) -> None:
    created = await create(ADMIN, WANTED)
    await verify.verify(created.token)
    assert await reason_of_refusal(verify, forged(created)) == "INVALID_API_KEY"
    assert await reason_of_refusal(verify, "pk_nonsense") == "INVALID_API_KEY"


async def test_cached_key_costs_no_read(create: CreateApiKey, verify: VerifyApiKey, store, clock) -> None:
    created = await create(ADMIN, WANTED)
    for _ in range(3):
        await verify.verify(created.token)
    assert store.reads == 1
    await clock.advance(CACHE_SECONDS)
    await verify.verify(created.token)
    assert store.reads == 2


async def test_cache_is_bounded_and_forgets_the_longest_unused(
    create: CreateApiKey, verify: VerifyApiKey, store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_api_key, "MAX_CACHED_KEYS", 2)
    first, second, third = [(await create(ADMIN, WANTED)).token for _ in range(3)]
    for token in (first, second, first, third):
        await verify.verify(token)
    reads = store.reads
    await verify.verify(first)
    assert store.reads == reads
    await verify.verify(second)
    assert store.reads == reads + 1


async def test_revoked_key_stops_when_the_cache_ends(create: CreateApiKey, verify: VerifyApiKey, store, clock) -> None:
    created = await create(ADMIN, WANTED)
    await verify.verify(created.token)
    await store.revoke(ADMIN.scope, created.key.key_id, clock.now())
    await clock.advance(CACHE_SECONDS)
    assert await reason_of_refusal(verify, created.token) == "API_KEY_REVOKED"


async def test_key_expires_also_while_cached(create: CreateApiKey, verify: VerifyApiKey, clock) -> None:
    created = await create(ADMIN, replace(WANTED, expire_time=NOW + timedelta(seconds=2)))
    await verify.verify(created.token)
    await clock.advance(2)
    assert await reason_of_refusal(verify, created.token) == "API_KEY_EXPIRED"


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"name": ""}, "name", "REQUIRED"),
        ({"name": "x" * 201}, "name", "TOO_LONG"),
        ({"name": "a\0b"}, "name", "INVALID_TEXT"),
        ({"scopes": frozenset()}, "scopes", "REQUIRED"),
        ({"scopes": frozenset({"jobs.fly"})}, "scopes", "UNKNOWN_SCOPE"),
        ({"scopes": frozenset({"operator"})}, "scopes", "UNKNOWN_SCOPE"),
        ({"project_ids": frozenset({"Not A Project"})}, "project_ids", "INVALID_PROJECT_ID"),
        ({"project_ids": frozenset(map(str, range(101)))}, "project_ids", "TOO_MANY_PROJECTS"),
        ({"expire_time": NOW}, "expire_time", "TIME_IN_PAST"),
    ],
)
async def test_bad_wish_is_refused_by_field(create: CreateApiKey, changes, field: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        await create(ADMIN, replace(WANTED, **changes))
    assert [(violation.field, violation.reason) for violation in raised.value.violations] == [(field, reason)]


@pytest.mark.parametrize(
    ("creator_projects", "key_projects", "refused"),
    [
        (None, None, False),
        (None, frozenset({"a"}), False),
        (frozenset({"a", "b"}), frozenset({"a"}), False),
        (frozenset({"a"}), frozenset({"a", "b"}), True),
        (frozenset({"a"}), None, True),
    ],
)
async def test_key_covers_no_project_that_its_creator_does_not(
    create: CreateApiKey, creator_projects, key_projects, refused: bool
) -> None:
    creator = replace(ADMIN, scope=OrgScope("acme", creator_projects))
    wanted = replace(WANTED, project_ids=key_projects)
    if not refused:
        assert (await create(creator, wanted)).key.project_ids == key_projects
        return
    with pytest.raises(PermissionDeniedError) as raised:
        await create(creator, wanted)
    assert raised.value.reason == "PROJECT_NOT_HELD"


async def test_key_has_no_scope_that_its_creator_lacks(create: CreateApiKey) -> None:
    creator = replace(ADMIN, permissions=frozenset({"keys.admin", "jobs.read"}))
    assert (await create(creator, WANTED)).key.scopes == {"jobs.read"}
    with pytest.raises(PermissionDeniedError) as raised:
        await create(creator, replace(WANTED, scopes=frozenset({"jobs.read", "jobs.write"})))
    assert (raised.value.reason, raised.value.metadata) == ("SCOPE_NOT_HELD", {"scope": "jobs.write"})
