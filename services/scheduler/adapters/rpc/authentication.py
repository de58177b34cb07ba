"""Turns the credential of a call into a `Caller`; behind one port, so that services do not know how it is done.

The interceptor of the public port (`admission`) asks one of the authenticators here, once a call. Services ask
`EstablishedCaller`, which only hands out what the interceptor found: where no interceptor was, there is no caller.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from grpc.aio import ServicerContext

from libs.common.errors import PermissionDeniedError, UnauthenticatedError
from services.scheduler.usecases.caller import ORG_ID, Caller, OrgScope, Permission

# Quoted: generic for the type checker only.
Context: TypeAlias = "ServicerContext[Any, Any]"

ALL_PERMISSIONS = frozenset(str(permission) for permission in Permission)
API_KEY_PREFIX = "pk_"
_BEARER_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")

Readmit: TypeAlias = Callable[[], Awaitable[None]]
"""Raises what the call would be refused with if it came now."""

_CALLER: ContextVar[Caller] = ContextVar("caller")
_READMIT: ContextVar[Readmit] = ContextVar("readmit")


class Authenticator(Protocol):
    """Knows callers by their credentials."""

    async def authenticate(self, context: Context) -> Caller:
        """Return who calls.

        Raises:
            UnauthenticatedError: no credential, or one that does not hold.
        """
        ...


class CredentialVerifier(Protocol):
    """Knows callers by one kind of credential."""

    async def verify(self, token: str) -> Caller:
        """Return whom the credential speaks for.

        Raises:
            UnauthenticatedError: it does not hold.
        """
        ...


class EstablishedCaller:
    """What services are given: the caller of this call, as the interceptor established it."""

    @staticmethod
    def establish(caller: Caller, readmit: Readmit) -> None:
        """Make this the caller for the rest of the call; each call has a context of its own, so none sees another's."""
        _CALLER.set(caller)
        _READMIT.set(readmit)

    @staticmethod
    def find() -> Caller | None:
        """Return the caller of this call, for layers that run whether there is one or not."""
        return _CALLER.get(None)

    async def authenticate(self, context: Context) -> Caller:  # noqa: ARG002 - the port's
        """Return the caller."""
        try:
            return _CALLER.get()
        except LookupError as error:
            raise UnauthenticatedError("NO_CREDENTIAL", "nobody was authenticated for this call") from error

    async def readmit(self) -> None:
        """Ask again whether the caller is let in: for streams, which may outlive their credential.

        Raises:
            UnauthenticatedError, PermissionDeniedError: the credential was revoked or expired, or allows less.
        """
        await _READMIT.get()()


class CredentialAuthenticator:
    """Knows callers by `authorization: Bearer ...`: an API key, or a JSON Web Token where an issuer is set."""

    def __init__(self, api_keys: CredentialVerifier, tokens: CredentialVerifier | None) -> None:
        self._api_keys = api_keys
        self._tokens = tokens

    async def authenticate(self, context: Context) -> Caller:
        """Return whom the credential speaks for, in its own org or in the one that an operator names."""
        metadata = _metadata(context)
        token = _bearer_token(metadata)
        if token.startswith(API_KEY_PREFIX):
            caller = await self._api_keys.verify(token)
        elif self._tokens is not None:
            caller = await self._tokens.verify(token)
        else:
            raise UnauthenticatedError(
                "INVALID_API_KEY", f"this installation takes API keys, {API_KEY_PREFIX}..., only"
            )
        return _in_named_org(caller, metadata)


class DevelopmentAuthenticator:
    """Believes the metadata. For a developer's own machine only.

    `x-punctual-org` is required. A narrower caller may be played by `x-punctual-projects` and `x-punctual-scopes`
    (separated by commas) and `x-punctual-subject`; unset, everything is allowed.
    """

    async def authenticate(self, context: Context) -> Caller:
        """Return the caller that the metadata describes."""
        metadata = _metadata(context)
        org_id = metadata.get("x-punctual-org", "")
        if not ORG_ID.fullmatch(org_id):
            raise UnauthenticatedError(
                "NO_CREDENTIAL", "in development mode the metadata x-punctual-org must name the org"
            )
        scopes = _names(metadata.get("x-punctual-scopes"))
        return Caller(
            metadata.get("x-punctual-subject", "development"),
            OrgScope(org_id, _names(metadata.get("x-punctual-projects"))),
            ALL_PERMISSIONS if scopes is None else ALL_PERMISSIONS & scopes,
        )


def _metadata(context: Context) -> Mapping[str, str]:
    """Return the text metadata; a repeated key is joined by commas, as HTTP has it, which no credential contains."""
    found: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found[key] = f"{found[key]},{value}" if key in found else value
    return found


def _bearer_token(metadata: Mapping[str, str]) -> str:
    header = metadata.get("authorization")
    if header is None:
        raise UnauthenticatedError("NO_CREDENTIAL", "the metadata `authorization: Bearer <credential>` is required")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not _BEARER_TOKEN.fullmatch(token):
        raise UnauthenticatedError("NO_CREDENTIAL", "the metadata authorization is not `Bearer <credential>`")
    return token


def _in_named_org(caller: Caller, metadata: Mapping[str, str]) -> Caller:
    """Return the caller in the org of `x-punctual-org`, which only an operator may choose; its limits stay."""
    org_id = metadata.get("x-punctual-org", caller.scope.org_id)
    if org_id == caller.scope.org_id:
        return caller
    if not caller.may(Permission.OPERATOR) or not ORG_ID.fullmatch(org_id):
        raise PermissionDeniedError("OPERATOR_REQUIRED", "naming another org needs the scope operator")
    return replace(caller, scope=replace(caller.scope, org_id=org_id))


def _names(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(name.strip() for name in text.split(",") if name.strip())
