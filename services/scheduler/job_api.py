"""Puts together what callers do with jobs and executions: the use cases behind JobService and ExecutionService."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from punctual.v1 import execution_service_pb2_grpc, job_service_pb2_grpc

from libs.common.clock import Clock
from libs.common.rpc.server import RpcServer
from services.scheduler.adapters.mongo.connection import MongoClient, open_client
from services.scheduler.adapters.mongo.documents import ExecutionDocument
from services.scheduler.adapters.mongo.execution_feed import MongoExecutionFeed
from services.scheduler.adapters.rpc.authentication import EstablishedCaller
from services.scheduler.adapters.rpc.execution_service import ExecutionService, ExecutionUseCases
from services.scheduler.adapters.rpc.job_service import JobService, JobUseCases
from services.scheduler.safeguards import Safeguards
from services.scheduler.settings import SchedulerSettings
from services.scheduler.usecases.bulk_change_state import BulkChangeState
from services.scheduler.usecases.cancel_execution import CancelExecution
from services.scheduler.usecases.change_job_state import ChangeJobState
from services.scheduler.usecases.create_jobs import CreateJobs
from services.scheduler.usecases.explain_job import ExplainJob
from services.scheduler.usecases.ports.blob_store import BlobStore
from services.scheduler.usecases.ports.due_nudge import DueNudge
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.job_store import JobStore
from services.scheduler.usecases.read_execution import ReadExecution
from services.scheduler.usecases.requested_execution import RequestExecution
from services.scheduler.usecases.resubmission import JudgeResubmission
from services.scheduler.usecases.settle import SettleFinished
from services.scheduler.usecases.update_job import UpdateJob
from services.scheduler.usecases.watch_executions import WatchExecutions


@dataclass(frozen=True, slots=True)
class Foundation:
    """What the use cases stand on."""

    settings: SchedulerSettings
    jobs: JobStore
    executions: ExecutionStore
    blobs: BlobStore
    settle: SettleFinished
    safeguards: Safeguards
    nudge: DueNudge
    clock: Clock


class JobApi:
    """The services of jobs and executions, with the database client of their watches."""

    def __init__(self, foundation: Foundation) -> None:
        self._on = foundation
        self._watches: MongoClient | None = None

    def add_to(self, public: RpcServer, authenticator: EstablishedCaller, stopping: asyncio.Event) -> None:
        """Serve both on the public server; watches end when `stopping` is set."""
        on = self._on
        request = RequestExecution(on.jobs, on.executions, on.nudge, on.clock)
        jobs = JobService(self._job_use_cases(request), authenticator)
        public.add(job_service_pb2_grpc.add_JobServiceServicer_to_server, jobs)
        executions = ExecutionUseCases(
            executions=on.executions,
            read=ReadExecution(on.jobs, on.executions),
            cancel=CancelExecution(on.jobs, on.executions, on.settle, on.clock),
            request=request,
            watch=self._watch(stopping),
            blobs=on.blobs,
        )
        public.add(
            execution_service_pb2_grpc.add_ExecutionServiceServicer_to_server,
            ExecutionService(executions, authenticator),
        )

    async def close(self) -> None:
        """Close the connections of the watches."""
        if self._watches is not None:
            await self._watches.close()

    def _job_use_cases(self, request: RequestExecution) -> JobUseCases:
        on = self._on
        retention = timedelta(days=on.settings.retention_days)
        window = timedelta(seconds=on.settings.fingerprint_window_seconds)
        quotas, audit = on.safeguards.quotas, on.safeguards.job_audit
        judge = JudgeResubmission(on.jobs, on.safeguards.headers)
        change_state = ChangeJobState(on.jobs, on.executions, on.nudge, audit, on.clock, retention)
        return JobUseCases(
            jobs=on.jobs,
            create=CreateJobs(on.jobs, judge, on.nudge, quotas, audit, on.clock, window),
            update=UpdateJob(on.jobs, on.executions, on.nudge, quotas, audit, on.clock, retention),
            change_state=change_state,
            bulk_change_state=BulkChangeState(on.jobs, change_state),
            request=request,
            explain=ExplainJob(on.jobs, on.executions, on.clock, retention),
            clock=on.clock,
        )

    def _watch(self, stopping: asyncio.Event) -> WatchExecutions:
        settings = self._on.settings
        # Each watch holds a connection, so they have their own: all of them at once leave the other calls alone.
        self._watches = open_client(settings.mongodb_uri.get_secret_value(), max_pool_size=settings.max_watches)
        executions = self._watches[settings.mongodb_database][ExecutionDocument.Settings.name]
        return WatchExecutions(MongoExecutionFeed(executions), self._on.clock, stopping, settings.max_watches)
