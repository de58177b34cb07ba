"""The scheduler's side of the protocol over real gRPC, holding executions in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.internal.v1.attempt_service_pb2_grpc import (
    AttemptServiceServicer,
    add_AttemptServiceServicer_to_server,
)
from punctual.v1 import job_pb2

from libs.common.clock import SystemClock
from libs.common.rpc.server import RpcServer
from libs.common.rpc.timestamps import to_timestamp

CLOCK = SystemClock()


def grant_message(execution_id: str, url: str, due: datetime, *, token: int = 1) -> pb.AttemptGrant:
    seconds = Duration(seconds=5)
    return pb.AttemptGrant(
        execution_id=execution_id,
        job_id="job",
        org_id="org",
        attempt_number=2,
        fencing_token=token,
        due_time=to_timestamp(due),
        fire_time=to_timestamp(due),
        request=pb.AttemptRequest(
            url=url,
            headers=[pb.RequestHeader(name="X-Api-Key", value="sk-0123456789", sensitive=True)],
            body=b'{"prompt":"hello"}',
            total_timeout=seconds,
            connect_timeout=seconds,
            first_byte_timeout=seconds,
            max_redirects=5,
            signing_secrets=[b"s" * 32],
            response_policy=job_pb2.ResponsePolicy(
                success_codes=[200, 201],
                checks=[
                    job_pb2.ResponseCheck(min_size_bytes=1),
                    job_pb2.ResponseCheck(json_path_exists="$.a"),
                    job_pb2.ResponseCheck(json_path_equals=job_pb2.JsonPathEquals(path="$.a", json_value="1")),
                ],
                max_size_bytes=1_000_000,
                store_full_response=True,
            ),
        ),
        limits=pb.AttemptLimits(job_requests_per_minute=60),
        trace_parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


@dataclass
class FakeScheduler(AttemptServiceServicer):
    """Grants what it holds, accepts every report, runs on a clock of its own."""

    ahead: timedelta = timedelta(0)
    ready: dict[str, pb.AttemptGrant] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    reports: dict[str, pb.AttemptReport] = field(default_factory=dict)
    uploaded: bytes = b""

    def _time(self) -> Timestamp:
        return to_timestamp(CLOCK.now() + self.ahead)

    async def BeginAttempts(self, request: pb.BeginAttemptsRequest, context: Any) -> pb.AttemptBatch:  # noqa: N802 - gRPC's name
        self.requests.append(request)
        grants = [self.ready.pop(item) for item in request.execution_ids if item in self.ready]
        granted = {grant.execution_id for grant in grants}
        refusals = [
            pb.AttemptRefusal(execution_id=item, reason="FINAL")
            for item in request.execution_ids
            if item not in granted
        ]
        return pb.AttemptBatch(
            grants=grants, refusals=refusals, server_time=self._time(), lease=Duration(seconds=30), more=False
        )

    async def PollReady(self, request: pb.PollReadyRequest, context: Any) -> pb.AttemptBatch:  # noqa: N802 - gRPC's name
        self.requests.append(request)
        return pb.AttemptBatch(server_time=self._time(), lease=Duration(seconds=30), more=True)

    async def ExtendLeases(self, request: pb.ExtendLeasesRequest, context: Any) -> pb.ExtendLeasesResponse:  # noqa: N802 - gRPC's name
        verdicts = pb.LeaseExtension.Verdict
        order = [verdicts.VERDICT_EXTENDED, verdicts.VERDICT_LOST, verdicts.VERDICT_CANCEL]
        extensions = [pb.LeaseExtension(lease=lease, verdict=order[n % 3]) for n, lease in enumerate(request.leases)]
        return pb.ExtendLeasesResponse(
            extensions=extensions, server_time=self._time(), lease=Duration(seconds=12, nanos=500_000_000)
        )

    async def ReportAttempts(self, request: pb.ReportAttemptsRequest, context: Any) -> pb.ReportAttemptsResponse:  # noqa: N802 - gRPC's name
        self.reports |= {report.lease.execution_id: report for report in request.reports}
        verdicts = pb.ReportResult.Verdict
        results = [
            pb.ReportResult(
                lease=report.lease,
                verdict=verdicts.VERDICT_STALE if report.lease.fencing_token == 99 else verdicts.VERDICT_ACCEPTED,
            )
            for report in request.reports
        ]
        return pb.ReportAttemptsResponse(results=results, server_time=self._time())

    async def UploadResponse(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[pb.UploadResponseRequest], context: Any
    ) -> pb.UploadResponseResponse:
        async for part in request_iterator:
            self.requests.append(part)
            self.uploaded += part.chunk
        return pb.UploadResponseResponse(blob_id="blob-1", size_bytes=len(self.uploaded))


@asynccontextmanager
async def serving(scheduler: FakeScheduler) -> AsyncIterator[str]:
    """Serve it on a free port and yield the address."""
    server = RpcServer("127.0.0.1:0")
    server.add(add_AttemptServiceServicer_to_server, scheduler)
    await server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop(0)
