"""What the metadata of a call makes of its caller, in production and in development mode."""

from __future__ import annotations

from typing import Any

import pytest

from libs.common.errors import PermissionDeniedError, PunctualError, UnauthenticatedError
from services.scheduler.adapters.rpc.authentication import (
    ALL_PERMISSIONS,
    CredentialAuthenticator,
    DevelopmentAuthenticator,
    EstablishedCaller,
)
from services.scheduler.usecases.caller import Caller, OrgScope

KEY = "pk_key.secret"
TOKEN = "eyJ.eyJ.sig"


class Context:
    """The part of a gRPC context that authentication looks at."""

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        return self._metadata


class Knows:
    """Believes one credential."""

    def __init__(self, credential: str, caller: Caller) -> None:
        self._credential = credential
        self._caller = caller

    async def verify(self, token: str) -> Caller:
        if token != self._credential:
            raise UnauthenticatedError("INVALID_API_KEY", "no")
        return self._caller


ANA = Caller("ana", OrgScope("acme", frozenset({"a"})), frozenset({"jobs.read"}))
OPERATOR = Caller("ops", OrgScope("home", frozenset({"a"})), frozenset({"jobs.read", "operator"}))
BOTH = CredentialAuthenticator(Knows(KEY, ANA), Knows(TOKEN, OPERATOR))
KEYS_ONLY = CredentialAuthenticator(Knows(KEY, ANA), None)


async def authenticate(authenticator: Any, *metadata: tuple[str, str | bytes]) -> Caller:
    caller: Caller = await authenticator.authenticate(Context(*metadata))
    return caller


async def reason_of_refusal(authenticator: Any, *metadata: tuple[str, str | bytes]) -> tuple[type[PunctualError], str]:
    with pytest.raises(PunctualError) as raised:
        await authenticate(authenticator, *metadata)
    return type(raised.value), raised.value.reason


@pytest.mark.parametrize(("credential", "caller"), [(KEY, ANA), (TOKEN, OPERATOR)])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_bearer_credential_is_known_by_its_kind(credential: str, caller: Caller, scheme: str) -> None:
    assert await authenticate(BOTH, ("authorization", f"{scheme} {credential}")) == caller


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("x-punctual-org", "acme")],
        [("authorization", "")],
        [("authorization", KEY)],
        [("authorization", f"Basic {KEY}")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {KEY} {KEY}")],
        [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")],
        [("authorization-bin", f"Bearer {KEY}".encode())],
    ],
)
async def test_call_without_one_bearer_credential_is_refused(metadata) -> None:
    assert await reason_of_refusal(BOTH, *metadata) == (UnauthenticatedError, "NO_CREDENTIAL")


async def test_tokens_are_refused_where_no_issuer_is_set() -> None:
    assert await reason_of_refusal(KEYS_ONLY, ("authorization", f"Bearer {TOKEN}")) == (
        UnauthenticatedError,
        "INVALID_API_KEY",
    )


async def test_operator_names_another_org_and_keeps_the_other_limits() -> None:
    caller = await authenticate(BOTH, ("authorization", f"Bearer {TOKEN}"), ("x-punctual-org", "acme"))
    assert caller == Caller("ops", OrgScope("acme", frozenset({"a"})), OPERATOR.permissions)


@pytest.mark.parametrize(("credential", "org"), [(KEY, "other"), (TOKEN, ""), (TOKEN, "a b")])
async def test_nobody_else_names_another_org(credential: str, org: str) -> None:
    metadata = (("authorization", f"Bearer {credential}"), ("x-punctual-org", org))
    assert await reason_of_refusal(BOTH, *metadata) == (PermissionDeniedError, "OPERATOR_REQUIRED")


async def test_own_org_may_be_named() -> None:
    assert await authenticate(BOTH, ("authorization", f"Bearer {KEY}"), ("x-punctual-org", "acme")) == ANA


async def test_production_believes_no_other_metadata() -> None:
    claims = (("x-punctual-scopes", "jobs.write"), ("x-punctual-projects", "b"), ("x-punctual-subject", "eve"))
    assert await authenticate(BOTH, ("authorization", f"Bearer {KEY}"), *claims) == ANA


async def test_development_believes_the_metadata() -> None:
    org = ("x-punctual-org", "acme")
    assert await authenticate(DevelopmentAuthenticator(), org) == Caller(
        "development", OrgScope("acme"), ALL_PERMISSIONS
    )
    narrow = (("x-punctual-projects", "a, b"), ("x-punctual-scopes", "jobs.read,x"), ("x-punctual-subject", "ana"))
    assert await authenticate(DevelopmentAuthenticator(), org, *narrow) == Caller(
        "ana", OrgScope("acme", frozenset({"a", "b"})), frozenset({"jobs.read"})
    )


@pytest.mark.parametrize("scopes", ["", "unknown"])
async def test_development_scopes_can_be_none_at_all(scopes: str) -> None:
    caller = await authenticate(DevelopmentAuthenticator(), ("x-punctual-org", "acme"), ("x-punctual-scopes", scopes))
    assert caller.permissions == frozenset()


async def test_service_without_a_gate_has_no_caller() -> None:
    assert await reason_of_refusal(EstablishedCaller()) == (UnauthenticatedError, "NO_CREDENTIAL")
