"""The scheduler's servers inside the test's own process, and what a test calls them by.

Development mode, free ports, a database of its own that the tests of a session share and leave empty. Nothing ticks by
itself: a test that wants a tick asks for one, over the internal API as a dispatcher does.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from punctual.internal.v1 import attempt_service_pb2, dispatch_service_pb2
from punctual.internal.v1.attempt_service_pb2_grpc import AttemptServiceStub
from punctual.internal.v1.dispatch_service_pb2_grpc import DispatchServiceStub
from punctual.v1 import job_pb2, job_service_pb2, schedule_pb2
from punctual.v1.execution_service_pb2_grpc import ExecutionServiceStub
from punctual.v1.job_service_pb2_grpc import JobServiceStub

from libs.common.clock import Clock, SystemClock
from libs.common.rpc.health import HealthReporter
from services.scheduler.adapters.mongo.connection import open_client
from services.scheduler.adapters.mongo.migrations import bind_documents
from services.scheduler.app import Scheduler
from services.scheduler.settings import SchedulerSettings
from services.scheduler.signals import Signals

ORG = (("x-punctual-org", "acme"),)
DETAILS_KEY = "grpc-status-details-bin"
_numbers: Iterator[int] = itertools.count(1)


@dataclass
class ServedScheduler:
    """Stubs of its services, and its inside for what has no RPC."""

    jobs: JobServiceStub
    executions: ExecutionServiceStub
    dispatch: DispatchServiceStub
    attempts: AttemptServiceStub
    scheduler: Scheduler
    stopping: asyncio.Event
    channel: grpc.aio.Channel
    clock: Clock
    signals: Signals
    _requests: Iterator[int] = field(default_factory=itertools.count)

    async def create(self, **changes: Any) -> job_pb2.Job:
        """Create a job like no other and return it."""
        answer = await self.jobs.CreateJob(job_service_pb2.CreateJobRequest(job=a_job(**changes)), metadata=ORG)
        return answer.job

    async def tick(self, ahead: timedelta = timedelta(seconds=2)) -> list[str]:
        """Acquire what is due in all partitions, as a dispatcher does; returns the executions' ids."""
        request = dispatch_service_pb2.AcquireDueRequest(partitions=range(256), max_executions=1000)
        request.horizon.FromTimedelta(ahead)
        answer = await self.dispatch.AcquireDue(request)
        return [execution.execution_id for execution in answer.executions]

    async def begin(self, *execution_ids: str) -> attempt_service_pb2.AttemptBatch:
        """Begin executions as an executor does."""
        request_id = f"request-{next(self._requests)}"
        return await self.attempts.BeginAttempts(
            attempt_service_pb2.BeginAttemptsRequest(
                executor_id="executor-1", request_id=request_id, execution_ids=execution_ids
            )
        )

    async def report(self, grant: attempt_service_pb2.AttemptGrant, **changes: Any) -> None:
        """Report an attempt: by default that the target answered 200 with `{}`."""
        now = a_timestamp(self.clock.now())
        fields: dict[str, Any] = {
            "result": attempt_service_pb2.AttemptReport.RESULT_ANSWERED,
            "start_time": now,
            "end_time": now,
            "status_code": 200,
            "response": attempt_service_pb2.ReportedResponse(body=b"{}", stored_size_bytes=2),
        }
        lease = attempt_service_pb2.AttemptLease(execution_id=grant.execution_id, fencing_token=grant.fencing_token)
        report = attempt_service_pb2.AttemptReport(lease=lease, **(fields | changes))
        await self.attempts.ReportAttempts(
            attempt_service_pb2.ReportAttemptsRequest(executor_id="executor-1", reports=[report])
        )


@asynccontextmanager
async def served_scheduler(
    mongo_uri: str, database: str, *, clock: Clock | None = None, **changes: Any
) -> AsyncIterator[ServedScheduler]:
    """Serve over a migrated database, by the scheduler's own composition."""
    defaults: dict[str, Any] = {
        "mongodb_uri": mongo_uri,
        "mongodb_database": database,
        "auth_mode": "development",
        "scheduler_public_address": "127.0.0.1:0",
        "scheduler_internal_address": "127.0.0.1:0",
    }
    settings = SchedulerSettings(**(defaults | changes))
    client = open_client(mongo_uri)
    await bind_documents(client[database])
    clock = clock or SystemClock()
    signals = Signals()
    scheduler = Scheduler(settings, clock, signals)
    stopping = asyncio.Event()
    public, internal = scheduler.servers(HealthReporter(), scheduler.safeguards.connect(), stopping)
    await public.start()
    await internal.start()
    public_channel = grpc.aio.insecure_channel(f"127.0.0.1:{public.port}")
    internal_channel = grpc.aio.insecure_channel(f"127.0.0.1:{internal.port}")
    try:
        yield ServedScheduler(
            JobServiceStub(public_channel),
            ExecutionServiceStub(public_channel),
            DispatchServiceStub(internal_channel),
            AttemptServiceStub(internal_channel),
            scheduler,
            stopping,
            public_channel,
            clock,
            signals,
        )
    finally:
        stopping.set()
        await public_channel.close()
        await internal_channel.close()
        await asyncio.gather(public.stop(2), internal.stop(0))
        await scheduler.job_api.close()
        await client.close()


def a_job(**changes: Any) -> job_pb2.Job:
    """Return a valid job like no other: it fires every minute."""
    job = job_pb2.Job(
        name="summary",
        schedule=schedule_pb2.Schedule(cron=schedule_pb2.CronRule(expression="* * * * *")),
        target=job_pb2.Target(url="https://api.example.com/v1", prompt=f"Say {next(_numbers)}."),
    )
    for name, value in changes.items():
        current = getattr(job, name)
        if isinstance(value, dict) and hasattr(current, "update"):
            current.update(value)
        elif hasattr(current, "CopyFrom"):
            current.CopyFrom(value)
        else:
            setattr(job, name, value)
    return job


def once_at(instant: datetime) -> schedule_pb2.Schedule:
    """Return a one-time schedule."""
    return schedule_pb2.Schedule(one_time=schedule_pb2.OneTimeRule(instant=a_timestamp(instant)))


def cron(expression: str, zone: str = "") -> schedule_pb2.Schedule:
    """Return a cron schedule."""
    return schedule_pb2.Schedule(cron=schedule_pb2.CronRule(expression=expression), time_zone=zone)


def a_timestamp(instant: datetime) -> Timestamp:
    """Return the message of an instant."""
    message = Timestamp()
    message.FromDatetime(instant)
    return message


def instant(message: Timestamp) -> datetime:
    """Return the instant of a message."""
    return message.ToDatetime(tzinfo=UTC)


@dataclass(frozen=True)
class Refusal:
    """An error as a caller sees it."""

    code: grpc.StatusCode
    reason: str
    fields: tuple[str, ...]
    metadata: dict[str, str]
    infos: int


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Return what an error tells."""
    details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY, b"")
    status = status_pb2.Status.FromString(details)
    infos = _details(status, error_details_pb2.ErrorInfo)
    bad_requests = _details(status, error_details_pb2.BadRequest)
    return Refusal(
        error.code(),
        infos[0].reason if infos else "",
        tuple(violation.field for bad_request in bad_requests for violation in bad_request.field_violations),
        dict(infos[0].metadata) if infos else {},
        len(infos),
    )


def _details(status: status_pb2.Status, kind: Any) -> Sequence[Any]:
    found = []
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found
