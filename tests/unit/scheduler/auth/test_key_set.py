"""The key set: which keys count, how a new one is found, and what an absent or hostile source can do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from libs.common.errors import UnavailableError
from libs.common.testing.fake_clock import FakeClock
from services.scheduler.adapters.tokens.key_set import (
    MAX_AGE_SECONDS,
    MIN_REFETCH_SECONDS,
    KeySet,
    read_key_set,
)
from services.scheduler.adapters.tokens.key_sources import MAX_BYTES, KeyFile
from tests.support.token_issuer import TokenIssuer


class Source:
    """A published key set that can be away."""

    def __init__(self) -> None:
        self.issuer = TokenIssuer()
        self.reads = 0
        self.away = False

    async def __call__(self) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            raise OSError("away")
        return self.issuer.jwks()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def keys(source: Source, clock: FakeClock) -> KeySet:
    return KeySet(source, clock)


async def test_known_keys_are_read_once(keys: KeySet, source: Source) -> None:
    for _ in range(3):
        key = await keys.find("RS256-1")
        assert key is not None
        assert key.algorithm == "RS256"
    assert source.reads == 1


async def test_new_key_is_found_when_it_is_first_used(keys: KeySet, source: Source, clock: FakeClock) -> None:
    await keys.refresh()
    source.issuer.rotate()
    await clock.advance(MIN_REFETCH_SECONDS)
    found = await asyncio.gather(*(keys.find("ES256-2") for _ in range(20)))
    assert None not in found
    assert source.reads == 2
    assert await keys.find("ES256-1") is None


async def test_invented_key_ids_do_not_flood_the_source(keys: KeySet, source: Source, clock: FakeClock) -> None:
    await keys.refresh()
    await clock.advance(MIN_REFETCH_SECONDS)
    for number in range(50):
        assert await keys.find(f"invented-{number}") is None
    assert source.reads == 2


async def test_keys_outlast_a_source_that_is_away_but_not_for_ever(
    keys: KeySet, source: Source, clock: FakeClock
) -> None:
    await keys.refresh()
    source.away = True
    await clock.advance(MAX_AGE_SECONDS - 1)
    await keys.refresh()
    assert await keys.find("ES256-1") is not None
    await clock.advance(1)
    with pytest.raises(UnavailableError):
        await keys.find("ES256-1")
    source.away = False
    await clock.advance(MIN_REFETCH_SECONDS)
    assert await keys.find("ES256-1") is not None


async def test_source_that_was_never_there_is_unavailable(keys: KeySet, source: Source) -> None:
    source.away = True
    with pytest.raises(UnavailableError) as raised:
        await keys.find("ES256-1")
    assert raised.value.reason == "KEY_SET_UNAVAILABLE"


def jwk(**changes: Any) -> dict[str, Any]:
    item = json.loads(TokenIssuer().jwks())["keys"][0]
    return {name: value for name, value in {**item, **changes}.items() if value is not None}


SMALL = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)


@pytest.mark.parametrize(
    "unusable",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x"},
        {**SMALL, "kid": "x"},
        jwk(kid=None),
        jwk(kid="x", use="enc"),
        jwk(kid="x", alg="RS512"),
        jwk(kid="x", key_ops=["sign"]),
        {**jwk(kid="x"), "key_ops": None},
        jwk(kid="x", key_ops=5),
        jwk(kid="x", d="AQAB"),
        jwk(kid="x", n="!"),
        "not a key",
    ],
)
def test_unusable_key_is_passed_over(unusable: Any) -> None:
    assert set(read_key_set(json.dumps({"keys": [unusable, jwk(kid="good")]}).encode())) == {"good"}


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": {}}', b"<html>"])
def test_document_without_keys_replaces_nothing(document: bytes) -> None:
    with pytest.raises(ValueError):
        read_key_set(document)


async def test_key_file_is_read_within_bounds(tmp_path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(b"{}")
    assert await KeyFile(path)() == b"{}"
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(ValueError, match="exceeds"):
        await KeyFile(path)()
    with pytest.raises(OSError):
        await KeyFile(tmp_path / "none")()
