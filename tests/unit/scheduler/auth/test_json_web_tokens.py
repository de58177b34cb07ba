"""Tokens: what is believed, and each way in which one can fail to hold."""

from __future__ import annotations

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from libs.common.errors import UnauthenticatedError
from libs.common.testing.fake_clock import FakeClock
from services.scheduler.adapters.tokens.json_web_tokens import SharedSecret, VerifyJsonWebToken
from services.scheduler.adapters.tokens.key_set import KeySet
from services.scheduler.usecases.caller import Caller, OrgScope
from tests.support.token_issuer import AUDIENCE, ISSUER, TokenIssuer, good_claims

LEEWAY = 30
SECRET = "a shared secret of more than 32 characters"


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
def verifier(issuer: TokenIssuer) -> VerifyJsonWebToken:
    async def fetch() -> bytes:
        return issuer.jwks()

    return VerifyJsonWebToken(KeySet(fetch, FakeClock()), ISSUER, AUDIENCE, LEEWAY)


@pytest.fixture
def with_secret() -> VerifyJsonWebToken:
    return VerifyJsonWebToken(SharedSecret(SECRET), ISSUER, AUDIENCE, LEEWAY)


async def reason_of_refusal(verifier: VerifyJsonWebToken, token: str) -> str:
    with pytest.raises(UnauthenticatedError) as raised:
        await verifier.verify(token)
    assert token not in str(raised.value)
    return raised.value.reason


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_token_of_each_algorithm_holds(verifier, issuer, algorithm: str) -> None:
    caller = await verifier.verify(issuer.sign(algorithm))
    assert caller == Caller("ana", OrgScope("acme"), frozenset({"jobs.read"}))


@pytest.mark.parametrize(
    ("claims", "projects", "permissions"),
    [
        ({"projects": ["a", "b"]}, {"a", "b"}, {"jobs.read"}),
        ({"projects": []}, set(), {"jobs.read"}),
        ({"scope": None, "scopes": ["jobs.write", "operator", "email"]}, None, {"jobs.write", "operator"}),
        ({"scopes": "audit.read  jobs.read"}, None, {"audit.read", "jobs.read"}),
        ({"scope": None}, None, set()),
    ],
)
async def test_claims_say_what_the_caller_may(verifier, issuer, claims, projects, permissions) -> None:
    caller = await verifier.verify(issuer.sign(**claims))
    assert caller.scope.project_ids == projects
    assert caller.permissions == permissions


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://other.test"}, "INVALID_TOKEN"),
        ({"iss": None}, "INVALID_TOKEN"),
        ({"aud": "another service"}, "INVALID_TOKEN"),
        ({"aud": None}, "INVALID_TOKEN"),
        ({"exp": int(time.time()) - LEEWAY - 1}, "TOKEN_EXPIRED"),
        ({"exp": None}, "INVALID_TOKEN"),
        ({"exp": "soon"}, "INVALID_TOKEN"),
        ({"nbf": int(time.time()) + LEEWAY + 60}, "INVALID_TOKEN"),
        ({"sub": None}, "INVALID_TOKEN"),
        ({"sub": ""}, "INVALID_TOKEN_CLAIM"),
        ({"sub": "a\nb"}, "INVALID_TOKEN_CLAIM"),
        ({"org": None}, "INVALID_TOKEN"),
        ({"org": ""}, "INVALID_TOKEN_CLAIM"),
        ({"org": {"$ne": ""}}, "INVALID_TOKEN_CLAIM"),
        ({"projects": "a"}, "INVALID_TOKEN_CLAIM"),
        ({"projects": [1]}, "INVALID_TOKEN_CLAIM"),
        ({"scopes": {"jobs.read": True}}, "INVALID_TOKEN_CLAIM"),
    ],
)
async def test_bad_claim_is_refused(verifier, issuer, claims, reason: str) -> None:
    assert await reason_of_refusal(verifier, issuer.sign(**claims)) == reason


@pytest.mark.parametrize(("claim", "apart"), [("exp", -5), ("nbf", 15)])
async def test_clocks_may_be_a_little_apart(verifier, issuer, claim: str, apart: int) -> None:
    assert (await verifier.verify(issuer.sign(**{claim: int(time.time()) + apart}))).subject == "ana"


async def test_unsigned_token_is_refused(verifier, issuer) -> None:
    for kid in (issuer.key_id("ES256"), ""):
        token = jwt.encode(good_claims(), None, algorithm="none", headers={"kid": kid})
        assert await reason_of_refusal(verifier, token) == "INVALID_TOKEN"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_public_key_is_no_shared_secret(verifier, issuer, algorithm: str) -> None:
    public = issuer.keys[algorithm].public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "typ": "JWT", "kid": issuer.key_id(algorithm)}
    # PyJWT refuses to sign this way, so it is done by hand.
    token = hs256(header, good_claims(), pem)
    assert await reason_of_refusal(verifier, token) == "INVALID_TOKEN"


async def test_key_of_one_algorithm_verifies_no_other(verifier, issuer) -> None:
    token = issuer.sign("RS256", kid=issuer.key_id("ES256"))
    assert await reason_of_refusal(verifier, token) == "INVALID_TOKEN"
    longer = jwt.encode(good_claims(), issuer.keys["RS256"], algorithm="RS512", headers={"kid": issuer.key_id("RS256")})
    assert await reason_of_refusal(verifier, longer) == "INVALID_TOKEN"


async def test_changed_payload_is_refused(verifier, issuer) -> None:
    header, _, signature = issuer.sign().split(".")
    payload = encoded(json.dumps(good_claims(org="victim")).encode())
    assert await reason_of_refusal(verifier, f"{header}.{payload}.{signature}") == "INVALID_TOKEN"


@pytest.mark.parametrize("token", ["x", "a.b", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30."])
async def test_garbage_is_refused(verifier, token: str) -> None:
    assert await reason_of_refusal(verifier, token) == "INVALID_TOKEN"


async def test_key_embedded_in_the_token_is_not_used(verifier, issuer) -> None:
    other = TokenIssuer()
    token = jwt.encode(
        good_claims(),
        other.keys["ES256"],
        algorithm="ES256",
        headers={"kid": issuer.key_id("ES256"), "jwk": json.loads(other.jwks())["keys"][1]},
    )
    assert await reason_of_refusal(verifier, token) == "INVALID_TOKEN"


async def test_shared_secret_verifies_its_own_algorithm_only(with_secret, issuer) -> None:
    token = issuer.sign("HS256", key=SECRET)
    assert (await with_secret.verify(token)).scope == OrgScope("acme")
    assert await reason_of_refusal(with_secret, issuer.sign("HS256", key=SECRET + "x")) == "INVALID_TOKEN"
    assert await reason_of_refusal(with_secret, issuer.sign("ES256")) == "INVALID_TOKEN"
    assert await reason_of_refusal(with_secret, jwt.encode(good_claims(), None, algorithm="none")) == "INVALID_TOKEN"


async def test_shared_secret_is_never_taken_where_keys_are_public(verifier, issuer) -> None:
    assert await reason_of_refusal(verifier, issuer.sign("HS256", key=SECRET)) == "INVALID_TOKEN"


def hs256(header, claims, key: bytes) -> str:
    import hashlib
    import hmac

    signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    return f"{signed}.{encoded(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")
