"""Puts the scheduler together: settings, database, use cases, the two servers, and the background duties."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

from punctual.internal.v1 import attempt_service_pb2_grpc, dispatch_service_pb2_grpc
from punctual.v1 import execution_service_pb2_grpc, job_service_pb2_grpc

from libs.common.clock import Clock, SystemClock
from libs.common.errors import FailedPreconditionError
from libs.common.logs import get_logger
from libs.common.rpc.health import LIVENESS, READINESS, HealthReporter
from libs.common.rpc.interceptors import ErrorInterceptor
from libs.common.rpc.server import RpcServer
from libs.common.supervised_loop import Heartbeat, pause, run_forever
from services.scheduler.adapters.due_nudge import InProcessNudge
from services.scheduler.adapters.mongo.clock_check import DatabaseCheck
from services.scheduler.adapters.mongo.connection import open_client, redact_uri, translate_error
from services.scheduler.adapters.mongo.execution_store import MongoExecutionStore
from services.scheduler.adapters.mongo.job_store import MongoJobStore
from services.scheduler.adapters.mongo.migrations import bind_documents, migrate
from services.scheduler.adapters.mongo.partition_store import MongoPartitionStore
from services.scheduler.adapters.rpc.attempt_service import AttemptService
from services.scheduler.adapters.rpc.authentication import DevelopmentAuthenticator
from services.scheduler.adapters.rpc.dispatch_service import DispatchService
from services.scheduler.adapters.rpc.execution_service import ExecutionService
from services.scheduler.adapters.rpc.job_service import JobService, JobUseCases
from services.scheduler.settings import SchedulerSettings
from services.scheduler.usecases.acquire_due import AcquireDue
from services.scheduler.usecases.begin_attempts import BeginAttempts
from services.scheduler.usecases.change_job_state import ChangeJobState
from services.scheduler.usecases.create_job import CreateJob
from services.scheduler.usecases.extend_leases import ExtendLeases
from services.scheduler.usecases.lease_partitions import LeasePartitions
from services.scheduler.usecases.report_attempts import ReportAttempts
from services.scheduler.usecases.run_job import RunJob
from services.scheduler.usecases.settle import SettleFinished, SweepUnsettled

log = get_logger(__name__)

PUBLIC_SERVICES = ("punctual.v1.JobService", "punctual.v1.ExecutionService")
INTERNAL_SERVICES = ("punctual.internal.v1.DispatchService", "punctual.internal.v1.AttemptService")
INTERNAL_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""A batch of a thousand grants or reports with their inline answers."""
DATABASE_CHECK_SECONDS = 2.0
STOP_GRACE_SECONDS = 5.0


async def run(settings: SchedulerSettings, stopping: asyncio.Event) -> None:
    """Serve until `stopping`; then refuse new calls, finish those in progress, and return."""
    _refuse_exposed_development_mode(settings)
    clock = SystemClock()
    client = open_client(settings.mongodb_uri.get_secret_value())
    database = client[settings.mongodb_database]
    log.info("database.opened", uri=redact_uri(settings.mongodb_uri.get_secret_value()), name=database.name)
    scheduler = Scheduler(settings, clock)
    check = DatabaseCheck(database, clock)
    health = _health(check, clock)
    try:
        async with asyncio.TaskGroup() as duties:
            duties.create_task(
                run_forever(
                    "database_check", check.run_once, interval=DATABASE_CHECK_SECONDS, stopping=stopping, clock=clock
                )
            )
            await bind_documents(database)
            if not await _migrated(lambda: migrate(database), stopping, clock):
                return
            public, internal = scheduler.servers(health)
            await public.start()
            await internal.start()
            log.info("scheduler.serving", public_port=public.port, internal_port=internal.port)
            duties.create_task(
                run_forever(
                    "sweep", scheduler.sweep.run_once, interval=settings.sweep_seconds, stopping=stopping, clock=clock
                )
            )
            await stopping.wait()
            await asyncio.gather(public.stop(STOP_GRACE_SECONDS), internal.stop(STOP_GRACE_SECONDS))
    finally:
        await client.close()


class Scheduler:
    """The use cases over their stores, and the servers in front of them."""

    def __init__(self, settings: SchedulerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._nudge = InProcessNudge()
        self._retention = timedelta(days=settings.retention_days)
        self._jobs = MongoJobStore()
        self._executions = MongoExecutionStore(self._retention)
        self._settle = SettleFinished(self._jobs, self._executions, self._nudge, clock)
        self.sweep = SweepUnsettled(self._jobs, self._executions, self._settle, clock)

    def servers(self, health: HealthReporter) -> tuple[RpcServer, RpcServer]:
        """Return the public and the internal server, not yet started."""
        errors = ErrorInterceptor(translate=translate_error)
        public = RpcServer(
            self._settings.scheduler_public_address,
            health=health,
            interceptors=[errors],
            reflection_services=PUBLIC_SERVICES,
        )
        authenticator = DevelopmentAuthenticator()
        public.add(
            job_service_pb2_grpc.add_JobServiceServicer_to_server, JobService(self._job_use_cases(), authenticator)
        )
        public.add(
            execution_service_pb2_grpc.add_ExecutionServiceServicer_to_server,
            ExecutionService(self._executions, authenticator),
        )
        internal = RpcServer(
            self._settings.scheduler_internal_address,
            interceptors=[errors],
            reflection_services=INTERNAL_SERVICES,
            max_message_bytes=INTERNAL_MAX_MESSAGE_BYTES,
        )
        internal.add(dispatch_service_pb2_grpc.add_DispatchServiceServicer_to_server, self._dispatch_service())
        internal.add(attempt_service_pb2_grpc.add_AttemptServiceServicer_to_server, self._attempt_service())
        return public, internal

    def _job_use_cases(self) -> JobUseCases:
        return JobUseCases(
            jobs=self._jobs,
            create=CreateJob(self._jobs, self._nudge, self._clock),
            change_state=ChangeJobState(self._jobs, self._executions, self._nudge, self._clock, self._retention),
            run=RunJob(self._jobs, self._executions, self._nudge, self._clock),
            clock=self._clock,
        )

    def _dispatch_service(self) -> DispatchService:
        return DispatchService(
            AcquireDue(self._jobs, self._executions, self._nudge, self._clock, self._retention),
            LeasePartitions(MongoPartitionStore(), self._clock),
            self._clock,
        )

    def _attempt_service(self) -> AttemptService:
        lease = timedelta(seconds=self._settings.lease_seconds)
        return AttemptService(
            BeginAttempts(self._jobs, self._executions, self._settle, self._clock, lease),
            ExtendLeases(self._executions, self._clock, lease),
            ReportAttempts(
                self._jobs, self._executions, self._settle, self._nudge, self._clock, random.SystemRandom().random
            ),
            self._clock,
            lease,
        )


def _health(check: DatabaseCheck, clock: Clock) -> HealthReporter:
    health = HealthReporter()
    heartbeat = Heartbeat(clock)

    def alive() -> str | None:
        # Evaluated on the event loop: that it runs is the sign of life.
        heartbeat.beat()
        return None

    health.add_check("event_loop", LIVENESS, alive)
    health.add_check("database", READINESS, check.check_primary)
    health.add_check("clock", READINESS, check.check_clock)
    return health


async def _migrated(migration: Callable[[], Awaitable[None]], stopping: asyncio.Event, clock: Clock) -> bool:
    """Bring the database up to date, waiting for it as long as it takes; False when told to stop first."""
    while not stopping.is_set():
        try:
            await migration()
        except Exception as error:
            if translate_error(error) is None:
                raise
            log.warning("database.unavailable", error=type(error).__name__)
            await pause(1.0, stopping, clock)
        else:
            return True
    return False


def _refuse_exposed_development_mode(settings: SchedulerSettings) -> None:
    host = settings.scheduler_public_address.rpartition(":")[0].strip("[]")
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise FailedPreconditionError(
            "DEVELOPMENT_MODE_EXPOSED",
            f"auth_mode=development believes every caller and must not listen on {host}: use a loopback address",
        )
    log.warning("auth.development_mode", warning="every caller is believed; never use this mode with real data")
