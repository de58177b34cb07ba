"""The gate of the internal port: each method belongs to one service, known by its client certificate.

That the certificate comes from our authority, TLS has checked before. Here its names decide: a DNS name or URI in the
subject alternative name must be one that the settings give the service, letter by letter. What is not in the table,
and who is nobody in it, is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc.aio import ServerInterceptor
from punctual.internal.v1 import attempt_service_pb2, dispatch_service_pb2

from libs.common.errors import PermissionDeniedError, UnauthenticatedError
from libs.common.rpc.surround import Context, Handler, guard

# Only these kinds of names: a common name is free text that nobody checked.
_NAME_PROPERTIES = ("peer_dns", "peer_uri")


class ServiceRole(enum.Enum):
    """A service that calls the internal port."""

    DISPATCHER = "dispatcher"
    EXECUTOR = "executor"


def _methods(service: ServiceDescriptor) -> Collection[str]:
    return [f"/{service.full_name}/{method.name}" for method in service.methods]


INTERNAL_METHODS: Mapping[str, ServiceRole] = {
    **dict.fromkeys(
        _methods(dispatch_service_pb2.DESCRIPTOR.services_by_name["DispatchService"]), ServiceRole.DISPATCHER
    ),
    **dict.fromkeys(_methods(attempt_service_pb2.DESCRIPTOR.services_by_name["AttemptService"]), ServiceRole.EXECUTOR),
}
"""Whose each internal method is."""


class ServiceIdentityInterceptor(ServerInterceptor):
    """Lets a service call its own methods. Goes inside the ErrorInterceptor, on a port that requires certificates."""

    def __init__(self, names: Mapping[ServiceRole, Collection[str]]) -> None:
        self._names = {role: frozenset(known) for role, known in names.items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler behind the gate; an unknown method has none."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        owner = INTERNAL_METHODS.get(handler_call_details.method)
        return guard(handler, partial(self._check, owner))

    async def _check(self, owner: ServiceRole | None, context: Context) -> None:
        auth: Mapping[str, Any] = context.auth_context()
        names = {name.decode(errors="replace") for kind in _NAME_PROPERTIES for name in auth.get(kind, ())}
        if not names:
            raise UnauthenticatedError("NO_CERTIFICATE", "the internal port needs a client certificate with a name")
        if owner is None or self._names[owner].isdisjoint(names):
            raise PermissionDeniedError("WRONG_SERVICE", f"the method is not open to {', '.join(sorted(names)[:3])}")
