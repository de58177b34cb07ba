"""A scheduler in this process over a real database, and a stand-in for the executors that answers what is due."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from punctual.internal.v1 import attempt_service_pb2 as internal_pb
from punctual.internal.v1.attempt_service_pb2_grpc import AttemptServiceStub

from libs.client import PunctualClient
from libs.common.errors import UnavailableError
from libs.common.ids import new_id
from libs.common.rpc.client import open_channel
from services.scheduler.app import run
from services.scheduler.settings import SchedulerSettings
from tools.devstack.ports import free_ports

ANSWER = b'{"answer": 42}'
EXECUTOR = "stand-in"


@dataclass(frozen=True)
class RunningScheduler:
    """Where it listens."""

    address: str
    internal_address: str

    async def answer_due(self) -> int:
        """Answer all attempts that are due, as executors would; return how many there were."""
        channel = open_channel(self.internal_address)
        stub = AttemptServiceStub(channel)
        asked = internal_pb.PollReadyRequest(
            executor_id=EXECUTOR,
            request_id=new_id(),
            max_attempts=100,
            mode=internal_pb.PollReadyRequest.MODE_ALL,
        )
        granted = (await stub.PollReady(asked)).grants
        reports = [_success(grant) for grant in granted]
        if reports:
            await stub.ReportAttempts(internal_pb.ReportAttemptsRequest(executor_id=EXECUTOR, reports=reports))
        await channel.close()
        return len(reports)


def _success(grant: internal_pb.AttemptGrant) -> internal_pb.AttemptReport:
    now = Timestamp()
    now.GetCurrentTime()
    return internal_pb.AttemptReport(
        lease=internal_pb.AttemptLease(execution_id=grant.execution_id, fencing_token=grant.fencing_token),
        result=internal_pb.AttemptReport.RESULT_ANSWERED,
        start_time=now,
        end_time=now,
        status_code=200,
        response=internal_pb.ReportedResponse(
            content_type="application/json",
            body=ANSWER,
            stored_size_bytes=len(ANSWER),
            total_size_bytes=len(ANSWER),
            sha256=hashlib.sha256(ANSWER).digest(),
        ),
    )


@pytest.fixture
async def scheduler(mongo_uri: str, mongo_database: str) -> AsyncIterator[RunningScheduler]:
    """A scheduler in development mode, ready to be called."""
    public, internal = (f"127.0.0.1:{port}" for port in free_ports(2))
    settings = SchedulerSettings(
        auth_mode="development",
        mongodb_uri=mongo_uri,
        mongodb_database=mongo_database,
        scheduler_public_address=public,
        scheduler_internal_address=internal,
    )
    stopping = asyncio.Event()
    serving = asyncio.create_task(run(settings, stopping))
    await _wait_ready(public, serving)
    yield RunningScheduler(public, internal)
    stopping.set()
    await serving


async def _wait_ready(address: str, serving: asyncio.Task[None]) -> None:
    async with PunctualClient(address, org="probe") as probe, asyncio.timeout(30):
        while not serving.done():
            try:
                await probe.with_deadline(1).org.get()
            except UnavailableError:
                await asyncio.sleep(0.05)
            else:
                return
        serving.result()


@pytest.fixture
async def client(scheduler: RunningScheduler) -> AsyncIterator[PunctualClient]:
    async with PunctualClient(scheduler.address, org="demo") as client:
        yield client
