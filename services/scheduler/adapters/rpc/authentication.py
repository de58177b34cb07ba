"""Turns the credential of a call into a `Caller`; behind one port, so that services do not know how it is done."""

from __future__ import annotations

import re
from typing import Any, Protocol, TypeAlias

from grpc.aio import ServicerContext

from libs.common.errors import UnauthenticatedError
from services.scheduler.usecases.caller import Caller, OrgScope

# Quoted: generic for the type checker only.
Context: TypeAlias = "ServicerContext[Any, Any]"

_ORG = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ALL_PERMISSIONS = frozenset(
    {"jobs.read", "jobs.write", "executions.read", "executions.content", "audit.read", "keys.admin", "org.admin"}
)


class Authenticator(Protocol):
    """Knows callers by their credentials."""

    async def authenticate(self, context: Context) -> Caller:
        """Return who calls.

        Raises:
            UnauthenticatedError: no credential, or one that does not hold.
        """
        ...


class DevelopmentAuthenticator:
    """Believes the `x-punctual-org` metadata. For a developer's own machine only."""

    async def authenticate(self, context: Context) -> Caller:
        """Return a caller with all permissions in the org that it names."""
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        org_id = metadata.get("x-punctual-org", "")
        if not _ORG.fullmatch(org_id):
            raise UnauthenticatedError(
                "NO_CREDENTIAL", "in development mode the metadata x-punctual-org must name the org"
            )
        return Caller("development", OrgScope(org_id), ALL_PERMISSIONS, peer=context.peer())
