"""Puts the scheduler together: settings, database, use cases, the two servers, and the background duties."""

from __future__ import annotations

import asyncio
import functools
import random
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from punctual.internal.v1 import attempt_service_pb2_grpc, dispatch_service_pb2_grpc
from punctual.v1 import api_key_service_pb2_grpc, target_host_service_pb2_grpc
from pymongo.asynchronous.database import AsyncDatabase

from libs.common.clock import Clock, SystemClock
from libs.common.logs import get_logger
from libs.common.rpc.health import LIVENESS, READINESS, HealthReporter
from libs.common.rpc.interceptors import ErrorInterceptor
from libs.common.rpc.server import RpcServer
from libs.common.supervised_loop import Heartbeat, pause, run_forever
from services.scheduler.access import Access
from services.scheduler.adapters.blobs.gridfs_blobs import GridFsBlobs
from services.scheduler.adapters.blobs.object_blobs import ObjectBlobs, open_object_store
from services.scheduler.adapters.due_nudge import InProcessNudge
from services.scheduler.adapters.mongo.api_key_store import MongoApiKeyStore
from services.scheduler.adapters.mongo.blob_records import MongoBlobRecords
from services.scheduler.adapters.mongo.clock_check import DatabaseCheck
from services.scheduler.adapters.mongo.connection import open_client, redact_uri, translate_error
from services.scheduler.adapters.mongo.counted_stores import CountedExecutionStore, CountedJobStore
from services.scheduler.adapters.mongo.due_probe import MongoDueProbe
from services.scheduler.adapters.mongo.migrations import bind_documents, migrate
from services.scheduler.adapters.mongo.partition_store import MongoPartitionStore
from services.scheduler.adapters.mongo.target_host_store import MongoTargetHostStore
from services.scheduler.adapters.rpc.api_key_service import ApiKeyService
from services.scheduler.adapters.rpc.attempt_service import AttemptService
from services.scheduler.adapters.rpc.dispatch_service import DispatchService
from services.scheduler.adapters.rpc.target_host_service import TargetHostService
from services.scheduler.domain.target_host import HostLimits
from services.scheduler.job_api import Foundation, JobApi
from services.scheduler.safeguards import SAFEGUARD_SERVICES, ConnectedSafeguards, Safeguards
from services.scheduler.settings import SchedulerSettings
from services.scheduler.signals import Signals
from services.scheduler.usecases.acquire_due import AcquireDue
from services.scheduler.usecases.answer_blobs import StoreAnswer, SweepBlobs
from services.scheduler.usecases.api_keys import CreateApiKey
from services.scheduler.usecases.begin_attempts import BeginAttempts
from services.scheduler.usecases.callbacks import WriteCallbacks
from services.scheduler.usecases.extend_leases import ExtendLeases
from services.scheduler.usecases.grant_details import DescribeGrants
from services.scheduler.usecases.lease_partitions import LeasePartitions
from services.scheduler.usecases.ports.blob_store import BlobStore
from services.scheduler.usecases.report_attempts import ReportAttempts
from services.scheduler.usecases.settle import SettleFinished, SweepUnsettled
from services.scheduler.usecases.target_hosts import ManageTargetHosts

log = get_logger(__name__)

PUBLIC_SERVICES = (
    "punctual.v1.JobService",
    "punctual.v1.ExecutionService",
    "punctual.v1.ApiKeyService",
    "punctual.v1.TargetHostService",
    *SAFEGUARD_SERVICES,
)
INTERNAL_SERVICES = ("punctual.internal.v1.DispatchService", "punctual.internal.v1.AttemptService")
INTERNAL_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""A batch of a thousand grants or reports with their inline answers."""
DATABASE_CHECK_SECONDS = 2.0
WATCHDOG_SECONDS = 5.0
"""How often a replica looks for what is overdue."""
STOP_GRACE_SECONDS = 5.0


async def run(settings: SchedulerSettings, stopping: asyncio.Event) -> None:
    """Serve until `stopping`; then refuse new calls, finish those in progress, and return."""
    clock = SystemClock()
    signals = Signals()
    client = open_client(settings.mongodb_uri.get_secret_value(), listener=signals.database)
    database = client[settings.mongodb_database]
    log.info("database.opened", uri=redact_uri(settings.mongodb_uri.get_secret_value()), name=database.name)
    scheduler = Scheduler(settings, clock, signals)
    scheduler.access.announce()
    scheduler.safeguards.announce()
    check = DatabaseCheck(database, clock)
    serving = asyncio.Event()
    pulse = Heartbeat(clock)
    health = _health(check, pulse, serving)
    probes = _probe_server(settings, health)
    edges = ExitStack()
    # A database that is away is a sentence in the log, and no traceback for each duty.
    forever = functools.partial(run_forever, stopping=stopping, clock=clock, translate=translate_error)
    try:
        metrics = signals.serve(settings.metrics_address, check, edges)
        # First, so that a replica that waits for its database is alive but not ready, and is not restarted for it.
        await probes.start()
        async with asyncio.TaskGroup() as duties:
            duties.create_task(
                forever("database_check", check.run_once, interval=DATABASE_CHECK_SECONDS, heartbeat=pulse)
            )
            if not await _prepared(database, scheduler.safeguards, stopping, clock):
                return
            safeguards = scheduler.safeguards.connect()
            public, internal = scheduler.servers(health, safeguards, stopping)
            await public.start()
            await internal.start()
            serving.set()
            log.info(
                "scheduler.serving",
                public_port=public.port,
                internal_port=internal.port,
                metrics_port=metrics.port if metrics else None,
            )
            duties.create_task(forever("watchdog", scheduler.watchdog.run_once, interval=WATCHDOG_SECONDS))
            duties.create_task(forever("sweep", scheduler.sweep.run_once, interval=settings.sweep_seconds))
            duties.create_task(forever("blob_sweep", scheduler.blob_sweep.run_once, interval=settings.sweep_seconds))
            for name, duty in safeguards.duties.items():
                duties.create_task(forever(name, duty.run_once, interval=duty.interval))
            if scheduler.access.key_set is not None:
                refresh = scheduler.access.key_set.refresh
                duties.create_task(forever("key_set", refresh, interval=settings.jwt_refresh_seconds))
            await stopping.wait()
            await asyncio.gather(public.stop(STOP_GRACE_SECONDS), internal.stop(STOP_GRACE_SECONDS))
    finally:
        await probes.stop(0)
        await scheduler.job_api.close()
        await client.close()
        edges.close()


class Scheduler:
    """The use cases over their stores, and the servers in front of them."""

    def __init__(self, settings: SchedulerSettings, clock: Clock, signals: Signals | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._signals = signals or Signals()
        self._nudge = InProcessNudge()
        self._retention = timedelta(days=settings.retention_days)
        self.safeguards = Safeguards(settings, clock, self._retention)
        counts = self._signals.executions
        self._jobs = CountedJobStore(self.safeguards.headers, self.safeguards.outbox, counts)
        self._executions = CountedExecutionStore(self._retention, self.safeguards.outbox, counts)
        self._api_keys = MongoApiKeyStore(self.safeguards.outbox)
        self._target_hosts = MongoTargetHostStore(self.safeguards.outbox, clock)
        self.access = Access(settings, self._api_keys, clock)
        callbacks = WriteCallbacks(self._jobs, self._executions, self.safeguards.orgs, self._nudge, clock)
        self._settle = SettleFinished(self._jobs, self._executions, self._nudge, clock, callbacks)
        self.sweep = SweepUnsettled(self._jobs, self._executions, self._settle, clock)
        self._blobs = _open_blobs(settings)
        self._blob_records = MongoBlobRecords()
        self.blob_sweep = SweepBlobs(self._executions, self._blobs, self._blob_records, clock)
        self._acquire = AcquireDue(
            self._jobs,
            self._executions,
            MongoDueProbe(),
            self._nudge,
            self._clock,
            self._retention,
            settings.max_catch_up_per_second,
            self._signals.ticks,
        )
        self.watchdog = self._signals.watchdog(self._acquire, clock)
        self.job_api = JobApi(
            Foundation(
                settings, self._jobs, self._executions, self._blobs, self._settle, self.safeguards, self._nudge, clock
            )
        )

    def servers(
        self, health: HealthReporter, safeguards: ConnectedSafeguards, stopping: asyncio.Event
    ) -> tuple[RpcServer, RpcServer]:
        """Return the public and the internal server, not yet started; streams end when `stopping` is set."""
        errors = ErrorInterceptor(translate=translate_error, observe=self._signals.calls.observe)
        public = RpcServer(
            self._settings.scheduler_public_address,
            health=health,
            interceptors=[
                self._signals.calls_traced,
                errors,
                *safeguards.layers(self.access.public_interceptors(), self.access.established),
            ],
            credentials=self.access.public_credentials(),
            reflection_services=PUBLIC_SERVICES if self._settings.reflects else None,
            max_concurrent_rpcs=self._settings.max_concurrent_rpcs,
        )
        authenticator = self.access.established
        self.job_api.add_to(public, authenticator, stopping)
        public.add(
            api_key_service_pb2_grpc.add_ApiKeyServiceServicer_to_server,
            ApiKeyService(self._api_keys, CreateApiKey(self._api_keys, self._clock), self._clock, authenticator),
        )
        safeguards.add_to(public, authenticator)
        public.add(
            target_host_service_pb2_grpc.add_TargetHostServiceServicer_to_server,
            TargetHostService(
                ManageTargetHosts(self._target_hosts, self._executions, self._nudge, self._clock), authenticator
            ),
        )
        internal = RpcServer(
            self._settings.scheduler_internal_address,
            interceptors=[errors, *self.access.internal_interceptors()],
            credentials=self.access.internal_credentials(),
            reflection_services=INTERNAL_SERVICES if self._settings.reflects else None,
            max_message_bytes=INTERNAL_MAX_MESSAGE_BYTES,
        )
        internal.add(dispatch_service_pb2_grpc.add_DispatchServiceServicer_to_server, self._dispatch_service())
        internal.add(attempt_service_pb2_grpc.add_AttemptServiceServicer_to_server, self._attempt_service())
        return public, internal

    def _default_limits(self) -> HostLimits:
        settings = self._settings
        return HostLimits(settings.default_host_requests_per_minute, settings.default_host_concurrent_requests)

    def _dispatch_service(self) -> DispatchService:
        return DispatchService(
            self._acquire,
            LeasePartitions(MongoPartitionStore(), self._clock),
            self._clock,
        )

    def _attempt_service(self) -> AttemptService:
        lease = timedelta(seconds=self._settings.lease_seconds)
        return AttemptService(
            BeginAttempts(self._jobs, self._executions, self._settle, self.safeguards.headers, self._clock, lease),
            ExtendLeases(self._executions, self._clock, lease),
            ReportAttempts(
                self._jobs,
                self._executions,
                self._settle,
                self._nudge,
                self.safeguards.usage,
                self._clock,
                random.Random().random,  # noqa: S311 - spreads retries, guards nothing
            ),
            DescribeGrants(
                self.safeguards.signing_secrets, self._target_hosts, self._default_limits(), self._executions
            ),
            self._target_hosts,
            store_answer=StoreAnswer(
                self._executions, self._blobs, self._blob_records, self.safeguards.usage, self._clock
            ),
            clock=self._clock,
            lease=lease,
        )


def _open_blobs(settings: SchedulerSettings) -> BlobStore:
    """Return the store of large answers."""
    return ObjectBlobs(open_object_store(settings.blob_store_url)) if settings.blob_store_url else GridFsBlobs()


def _probe_server(settings: SchedulerSettings, health: HealthReporter) -> RpcServer:
    """Return the server for probes that speak no TLS; without an address it listens nowhere."""
    addresses = (settings.scheduler_health_address,) if settings.scheduler_health_address else ()
    return RpcServer(*addresses, health=health)


def _health(check: DatabaseCheck, pulse: Heartbeat, serving: asyncio.Event) -> HealthReporter:
    health = HealthReporter()
    # A database that is away fails each check in bounded time, and that is life; a check that hangs is a driver that
    # only a restart mends.
    health.add_check("database_check", LIVENESS, pulse.check)
    health.add_check("servers", READINESS, lambda: None if serving.is_set() else "not listening yet")
    health.add_check("database", READINESS, check.check_primary)
    health.add_check("replica_set", READINESS, check.check_replica_set)
    health.add_check("clock", READINESS, check.check_clock)
    return health


async def _prepared(
    database: AsyncDatabase[dict[str, Any]], safeguards: Safeguards, stopping: asyncio.Event, clock: Clock
) -> bool:
    """Bring the database up to date, waiting for it as long as it takes; False when told to stop first."""
    while not stopping.is_set():
        try:
            # Binding asks the server for its version, so it fails like the rest while there is none.
            await bind_documents(database)
            await migrate(database)
            await safeguards.check()
        except Exception as error:
            if translate_error(error) is None:
                raise
            log.warning("database.unavailable", error=type(error).__name__)
            await pause(1.0, stopping, clock)
        else:
            return True
    return False
