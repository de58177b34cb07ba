"""The scheduler over gRPC. The channel raises our errors; every call has a deadline of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from grpc import aio
from punctual.internal.v1 import dispatch_service_pb2 as pb
from punctual.internal.v1.dispatch_service_pb2_grpc import DispatchServiceStub

from services.dispatcher.domain.due_heap import DueEntry
from services.dispatcher.usecases.ports import Acquired, PartitionLease

# Beyond the wait: what materializing a full batch may take on a busy database.
_ACQUIRE_SECONDS = 10.0
_RELEASE_SECONDS = 2.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SchedulerClient:
    """Implements the `Scheduler` port in the name of one dispatcher process."""

    def __init__(self, channel: aio.Channel, dispatcher_id: str) -> None:
        self._stub = DispatchServiceStub(channel)
        self._dispatcher_id = dispatcher_id

    async def acquire_due(
        self, partitions: Sequence[int], *, horizon_seconds: float, limit: int, wait_seconds: float
    ) -> Acquired:
        """Materialize and return what comes due within the horizon."""
        answer = await self._stub.AcquireDue(
            pb.AcquireDueRequest(
                dispatcher_id=self._dispatcher_id,
                partitions=partitions,
                horizon=_duration(horizon_seconds),
                max_executions=limit,
                wait=_duration(wait_seconds),
            ),
            timeout=wait_seconds + _ACQUIRE_SECONDS,
        )
        return Acquired([_entry(due) for due in answer.executions], answer.more)

    async def lease_partitions(self, lease_seconds: float) -> PartitionLease:
        """Renew this dispatcher's partitions, or get its share of the free ones."""
        answer = await self._stub.LeasePartitions(
            pb.LeasePartitionsRequest(dispatcher_id=self._dispatcher_id, lease=_duration(lease_seconds)),
            # Time for another try before the lease ends.
            timeout=lease_seconds / 3,
        )
        return PartitionLease(
            tuple(answer.partitions), answer.expire_time.ToDatetime(tzinfo=UTC), answer.dispatcher_count
        )

    async def release_partitions(self) -> None:
        """Give all partitions back."""
        await self._stub.ReleasePartitions(
            pb.ReleasePartitionsRequest(dispatcher_id=self._dispatcher_id), timeout=_RELEASE_SECONDS
        )


def _entry(due: pb.DueExecution) -> DueEntry:
    return DueEntry(
        execution_id=due.execution_id,
        job_id=due.job_id,
        org_id=due.org_id,
        # Half of what the message's own conversion takes; an instant in whole milliseconds is the same by both.
        due_time=_EPOCH + timedelta(seconds=due.due_time.seconds, microseconds=due.due_time.nanos // 1000),
        partition=due.partition,
        trace_parent=due.trace_parent,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
