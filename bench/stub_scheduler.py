"""A scheduler that grants whatever it is asked for and takes every report: an executor can be measured alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode, aio
from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.internal.v1 import attempt_service_pb2_grpc
from punctual.v1 import job_pb2

from tools.devstack.ports import LOOPBACK

LEASE = Duration(seconds=15)
_Context = aio.ServicerContext[Any, Any]


class StubScheduler(attempt_service_pb2_grpc.AttemptServiceServicer):
    """Serves the executors' calls out of one template."""

    def __init__(self, target: str, due: Timestamp, *, concurrent_requests: int) -> None:
        self.reported = 0
        """Attempts reported so far."""
        self._template = pb.AttemptGrant(
            org_id="bench",
            attempt_number=1,
            fencing_token=1,
            due_time=due,
            fire_time=due,
            request=pb.AttemptRequest(
                url=target,
                headers=[pb.RequestHeader(name="Content-Type", value="application/json")],
                body=b'{"prompt":"What is the state of burst-0?"}',
                total_timeout=Duration(seconds=30),
                connect_timeout=Duration(seconds=10),
                first_byte_timeout=Duration(seconds=30),
                max_redirects=5,
                response_policy=job_pb2.ResponsePolicy(max_size_bytes=10_000_000, store_full_response=True),
            ),
            # What a job has by default: its own limit a minute, and the org's places at the host.
            limits=pb.AttemptLimits(job_requests_per_minute=60, host_concurrent_requests=concurrent_requests),
        )

    async def BeginAttempts(self, request: pb.BeginAttemptsRequest, context: _Context) -> pb.AttemptBatch:  # noqa: ARG002, N802
        """Grant all."""
        batch = pb.AttemptBatch(server_time=_now(), lease=LEASE)
        for execution_id in request.execution_ids:
            grant = batch.grants.add()
            grant.CopyFrom(self._template)
            grant.execution_id = execution_id
            grant.job_id = execution_id.partition("-")[0]
        return batch

    async def PollReady(self, request: pb.PollReadyRequest, context: _Context) -> pb.AttemptBatch:  # noqa: ARG002, N802
        """Find nothing overdue."""
        return pb.AttemptBatch(server_time=_now(), lease=LEASE)

    async def ExtendLeases(self, request: pb.ExtendLeasesRequest, context: _Context) -> pb.ExtendLeasesResponse:  # noqa: ARG002, N802
        """Extend all."""
        extended = pb.LeaseExtension.Verdict.VERDICT_EXTENDED
        extensions = [pb.LeaseExtension(lease=lease, verdict=extended) for lease in request.leases]
        return pb.ExtendLeasesResponse(server_time=_now(), lease=LEASE, extensions=extensions)

    async def ReportAttempts(self, request: pb.ReportAttemptsRequest, context: _Context) -> pb.ReportAttemptsResponse:  # noqa: ARG002, N802
        """Take all."""
        answered = pb.AttemptReport.Result.RESULT_ANSWERED
        self.reported += sum(1 for report in request.reports if report.result == answered)
        accepted = pb.ReportResult.Verdict.VERDICT_ACCEPTED
        return pb.ReportAttemptsResponse(
            server_time=_now(),
            results=[pb.ReportResult(lease=report.lease, verdict=accepted) for report in request.reports],
        )

    async def ReportTargetHosts(  # noqa: N802
        self,
        request: pb.ReportTargetHostsRequest,  # noqa: ARG002
        context: _Context,  # noqa: ARG002
    ) -> pb.ReportTargetHostsResponse:
        """Take all."""
        return pb.ReportTargetHostsResponse()

    async def UploadResponse(  # noqa: N802
        self,
        request_iterator: AsyncIterator[pb.UploadResponseRequest],  # noqa: ARG002
        context: _Context,
    ) -> pb.UploadResponseResponse:
        """Take none: the target's answers are small."""
        return await context.abort(StatusCode.UNIMPLEMENTED, "no uploads here")


@asynccontextmanager
async def serving(stub: StubScheduler, port: int) -> AsyncIterator[None]:
    """Serve while the body runs."""
    server = aio.server()
    attempt_service_pb2_grpc.add_AttemptServiceServicer_to_server(stub, server)
    server.add_insecure_port(f"{LOOPBACK}:{port}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0.5)


def _now() -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC))
    return stamp
