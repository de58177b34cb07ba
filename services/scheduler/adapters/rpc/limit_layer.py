"""Counts each call of the public port against its caller's limits, before the handler does any work.

Inside the gate, for a limit needs a caller. Creations are counted as they are asked for, whether they succeed or not:
refusing costs work, too. What only validates creates nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
from grpc.aio import ServerInterceptor
from punctual.v1 import job_service_pb2 as pb

from libs.common.rpc.surround import Context, Handler, guard, guard_request
from services.scheduler.adapters.rpc.authentication import Authenticator
from services.scheduler.adapters.rpc.method_rules import OPEN_METHODS
from services.scheduler.usecases.request_limits import RequestLimits

_CREATE = "/punctual.v1.JobService/CreateJob"
_BATCH_CREATE = "/punctual.v1.JobService/BatchCreateJobs"


class RequestLimitInterceptor(ServerInterceptor):
    """Refuses calls above the limits with RESOURCE_EXHAUSTED and the time to come back."""

    def __init__(self, limits: RequestLimits, authenticator: Authenticator) -> None:
        self._limits = limits
        self._authenticator = authenticator

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler behind its limits."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method in OPEN_METHODS:
            return handler
        if method == _CREATE:
            return guard_request(handler, self._create)
        if method == _BATCH_CREATE:
            return guard_request(handler, self._batch_create)
        return guard(handler, self._call)

    async def _call(self, context: Context) -> None:
        await self._limits.charge_call(await self._authenticator.authenticate(context))

    async def _create(self, request: pb.CreateJobRequest, context: Context) -> None:
        caller = await self._authenticator.authenticate(context)
        await self._limits.charge_call(caller)
        if not request.validate_only:
            await self._limits.charge_create(caller)

    async def _batch_create(self, request: pb.BatchCreateJobsRequest, context: Context) -> None:
        caller = await self._authenticator.authenticate(context)
        await self._limits.charge_call(caller)
        await self._limits.charge_batch(caller, sum(not item.validate_only for item in request.requests))
