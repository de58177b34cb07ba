"""Sees to it that every mutating call of the public port leaves an event in the audit.

A change carries its own event (see `usecases.audit`). What carries none is recorded here, after the fact and best
effort: calls that were refused, with the reason, and calls that changed nothing. Both are bounded for each org, so that
a caller in a loop cannot fill the audit. Calls without a known caller have no org to be recorded under.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from grpc.aio import ServerInterceptor
from punctual.v1 import (
    api_key_service_pb2,
    audit_service_pb2,
    execution_service_pb2,
    job_service_pb2,
    org_service_pb2,
    signing_secret_service_pb2,
    target_host_service_pb2,
)

from libs.common.clock import Clock
from libs.common.errors import PunctualError
from libs.common.instants import truncate_to_millis
from libs.common.logs import get_logger
from libs.common.rpc.surround import Context, Handler, surround_request
from services.scheduler.adapters.audit_trail import audit_trail
from services.scheduler.adapters.rpc.authentication import EstablishedCaller
from services.scheduler.usecases.audit import AuditLog, call_event
from services.scheduler.usecases.caller import Caller

BESIDE_PER_MINUTE = 60
"""Events without a change that one replica records of an org in a minute; of more, only the number is logged."""

MAX_ORGS = 10_000
MAX_NOTE = 500
MAX_ID = 128

_FILES = (
    api_key_service_pb2,
    audit_service_pb2,
    execution_service_pb2,
    job_service_pb2,
    org_service_pb2,
    signing_secret_service_pb2,
    target_host_service_pb2,
)
_OBJECTS = {
    "JobService": ("job", ("job_id",)),
    "ExecutionService": ("execution", ("execution_id",)),
    "ApiKeyService": ("api_key", ("key_id",)),
    "SigningSecretService": ("signing_secret", ("secret_id",)),
    "OrgService": ("org", ()),
    "TargetHostService": ("target", ("host",)),
}
"""What the methods of a service change, and where their requests name it."""

log = get_logger(__name__)


def _mutating_methods() -> Iterator[str]:
    for file in _FILES:
        services: dict[str, ServiceDescriptor] = file.DESCRIPTOR.services_by_name
        for service in services.values():
            for method in service.methods:
                if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS:
                    yield f"/{service.full_name}/{method.name}"


MUTATING_METHODS = frozenset(_mutating_methods())
"""The full names of all public methods whose proto does not call them free of side effects."""


class AuditInterceptor(ServerInterceptor):
    """Goes inside the ErrorInterceptor and around all else, so that it sees every refusal."""

    def __init__(self, audit: AuditLog, clock: Clock, translate: Callable[[Exception], PunctualError | None]) -> None:
        """Take what turns a library's error into the one that the caller will see, or None for a defect."""
        self._audit = audit
        self._clock = clock
        self._translate = translate
        self._budget = _Budget(clock)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler with its calls recorded, if they may change something."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method not in MUTATING_METHODS:
            return handler
        return surround_request(handler, self._recorded)

    @asynccontextmanager
    async def _recorded(self, request: Any, _context: Context) -> AsyncIterator[None]:
        with audit_trail() as trail:
            try:
                yield
            except Exception as error:
                known = error if isinstance(error, PunctualError) else self._translate(error)
                await self._record(request, known.reason if known else "INTERNAL")
                raise
            if not trail.has_event:
                await self._record(request, "OK")

    async def _record(self, request: Any, result: str) -> None:
        caller = EstablishedCaller.find()
        if caller is None or getattr(request, "validate_only", False) or not self._budget.spend(caller.scope.org_id):
            return
        object_type, object_id = _object(caller, request)
        event = call_event(
            caller,
            truncate_to_millis(self._clock.now()),
            object_type,
            object_id,
            note=str(getattr(request, "note", ""))[:MAX_NOTE],
            result=result,
        )
        try:
            await self._audit.record(event)
        except Exception as error:  # noqa: BLE001 - the call's own answer counts, whatever becomes of its record
            log.warning("audit.not_recorded", org_id=event.org_id, result=result, error=type(error).__name__)


def _object(caller: Caller, request: Any) -> tuple[str, str]:
    """Return the kind of object that a call is about, and its id as far as the request names it."""
    object_type, fields = _OBJECTS[caller.method.partition(".")[0]]
    if object_type == "org":
        return object_type, caller.scope.org_id
    for field in fields:
        value = getattr(request, field, "")
        if isinstance(value, str) and value:
            return object_type, value[:MAX_ID]
    # UpdateJob names the job inside of it.
    return object_type, str(getattr(getattr(request, "job", None), "job_id", ""))[:MAX_ID]


class _Budget:
    """Allows each org so many a minute on this replica."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def spend(self, org_id: str) -> bool:
        """Take one; False when the minute's are used up."""
        now = self._clock.monotonic()
        end, spent = self._windows.get(org_id, (0.0, 0))
        if now >= end:
            if spent > BESIDE_PER_MINUTE:
                log.warning("audit.dropped", org_id=org_id, events=spent - BESIDE_PER_MINUTE)
            end, spent = now + 60, 0
        self._windows[org_id] = (end, spent + 1)
        self._windows.move_to_end(org_id)
        if len(self._windows) > MAX_ORGS:
            self._windows.popitem(last=False)
        return spent < BESIDE_PER_MINUTE
