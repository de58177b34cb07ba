"""DispatchService: the internal API for dispatchers."""

from __future__ import annotations

from datetime import timedelta

from punctual.internal.v1 import dispatch_service_pb2 as pb
from punctual.internal.v1 import dispatch_service_pb2_grpc

from libs.common.clock import Clock
from libs.common.errors import InvalidArgumentError
from libs.common.rpc.timestamps import to_timestamp
from services.scheduler.adapters.rpc.authentication import Context
from services.scheduler.adapters.rpc.times import to_span
from services.scheduler.domain.job import PARTITION_COUNT
from services.scheduler.usecases.acquire_due import AcquireDue
from services.scheduler.usecases.lease_partitions import LeasePartitions

MAX_EXECUTIONS = 10_000
MAX_HORIZON = timedelta(seconds=60)
MAX_WAIT = timedelta(seconds=30)
MIN_LEASE = timedelta(seconds=1)
MAX_LEASE = timedelta(seconds=60)


class DispatchService(dispatch_service_pb2_grpc.DispatchServiceServicer):
    """Maps messages to the tick and the partition leases."""

    def __init__(self, acquire: AcquireDue, partitions: LeasePartitions, clock: Clock) -> None:
        self._acquire = acquire
        self._partitions = partitions
        self._clock = clock

    async def AcquireDue(self, request: pb.AcquireDueRequest, context: Context) -> pb.AcquireDueResponse:
        """Return what comes due within the horizon."""
        if not request.partitions or not all(0 <= number < PARTITION_COUNT for number in request.partitions):
            raise InvalidArgumentError.of("partitions", "OUT_OF_RANGE", f"must be some of 0 to {PARTITION_COUNT - 1}")
        if not 1 <= request.max_executions <= MAX_EXECUTIONS:
            raise InvalidArgumentError.of("max_executions", "OUT_OF_RANGE", f"is not within 1 to {MAX_EXECUTIONS}")
        batch = await self._acquire(
            request.partitions,
            _within(to_span(request.horizon, "horizon"), timedelta(0), MAX_HORIZON, "horizon"),
            request.max_executions,
            _within(to_span(request.wait, "wait"), timedelta(0), MAX_WAIT, "wait").total_seconds(),
        )
        return pb.AcquireDueResponse(
            executions=[
                pb.DueExecution(
                    execution_id=execution.execution_id,
                    job_id=execution.job_id,
                    org_id=execution.org_id,
                    due_time=to_timestamp(execution.available_time or execution.due_time),
                    partition=execution.partition,
                    trace_parent=execution.trace_parent,
                )
                for execution in batch.executions
            ],
            more=batch.more,
            server_time=to_timestamp(self._clock.now()),
        )

    async def LeasePartitions(self, request: pb.LeasePartitionsRequest, context: Context) -> pb.LeasePartitionsResponse:
        """Renew the caller's partitions."""
        lease = _within(to_span(request.lease, "lease"), MIN_LEASE, MAX_LEASE, "lease")
        held = await self._partitions(_known(request.dispatcher_id), lease)
        return pb.LeasePartitionsResponse(
            partitions=held.partitions,
            expire_time=to_timestamp(held.expire_time),
            dispatcher_count=held.dispatcher_count,
        )

    async def ReleasePartitions(
        self, request: pb.ReleasePartitionsRequest, context: Context
    ) -> pb.ReleasePartitionsResponse:
        """Give the caller's partitions back."""
        await self._partitions.release(_known(request.dispatcher_id))
        return pb.ReleasePartitionsResponse()


def _known(dispatcher_id: str) -> str:
    if not dispatcher_id:
        raise InvalidArgumentError.of("dispatcher_id", "REQUIRED", "is required")
    return dispatcher_id


def _within(span: timedelta, least: timedelta, most: timedelta, field: str) -> timedelta:
    if not least <= span <= most:
        raise InvalidArgumentError.of(field, "OUT_OF_RANGE", f"is not within {least} to {most}")
    return span
