"""The scheduler's AttemptService over gRPC. Every answer is also a look at the scheduler's clock.

The channel raises our own errors; a call whose outcome is unknown comes as UnavailableError, which is right here,
since every call may be repeated. An upload takes as long as it needs, so its deadline is one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio
from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.internal.v1.attempt_service_pb2_grpc import AttemptServiceStub

from libs.common.clock import Clock
from libs.common.clock_offset import OffsetEstimator
from libs.common.errors import InternalError
from services.executor.adapters.attempt_messages import (
    batch_of,
    host_message,
    lease_message,
    reports_request,
)
from services.executor.adapters.proto_time import instant_of, seconds_of
from services.executor.domain.answer import AnswerSource
from services.executor.domain.attempt import Lease
from services.executor.domain.report import Report
from services.executor.usecases.ports import (
    Extensions,
    ExtensionVerdict,
    GrantBatch,
    ObservedHost,
    PollMode,
    ReportVerdict,
)

CALL_SECONDS = 5.0
UPLOAD_SECONDS = 60.0

_POLL_MODES = {
    PollMode.OVERDUE: pb.PollReadyRequest.Mode.MODE_OVERDUE,
    PollMode.ALL: pb.PollReadyRequest.Mode.MODE_ALL,
}
_EXTENSIONS = {
    pb.LeaseExtension.Verdict.VERDICT_EXTENDED: ExtensionVerdict.EXTENDED,
    pb.LeaseExtension.Verdict.VERDICT_LOST: ExtensionVerdict.LOST,
    pb.LeaseExtension.Verdict.VERDICT_CANCEL: ExtensionVerdict.CANCEL,
}
_REPORTS = {
    pb.ReportResult.Verdict.VERDICT_ACCEPTED: ReportVerdict.ACCEPTED,
    pb.ReportResult.Verdict.VERDICT_STALE: ReportVerdict.STALE,
}


class SchedulerAttempts:
    """Implements `AttemptService` for one executor, which is this process."""

    def __init__(self, channel: aio.Channel, executor_id: str, clock: Clock, estimator: OffsetEstimator) -> None:
        self._stub = AttemptServiceStub(channel)
        self._executor_id = executor_id
        self._clock = clock
        self._estimator = estimator

    async def begin(self, request_id: str, execution_ids: Sequence[str]) -> GrantBatch:
        """Ask for attempts of delivered executions."""
        request = pb.BeginAttemptsRequest(
            executor_id=self._executor_id, request_id=request_id, execution_ids=execution_ids
        )
        sent = self._clock.now()
        answer: pb.AttemptBatch = await self._stub.BeginAttempts(request, timeout=CALL_SECONDS)
        self._look_at_clock(sent, answer.server_time)
        return await batch_of(answer)

    async def poll(self, request_id: str, max_attempts: int, mode: PollMode, *, repetition: bool) -> GrantBatch:
        """Ask for attempts that no delivery reached."""
        request = pb.PollReadyRequest(
            executor_id=self._executor_id,
            request_id=request_id,
            max_attempts=max_attempts,
            mode=_POLL_MODES[mode],
            repetition=repetition,
        )
        sent = self._clock.now()
        answer: pb.AttemptBatch = await self._stub.PollReady(request, timeout=CALL_SECONDS)
        self._look_at_clock(sent, answer.server_time)
        return await batch_of(answer)

    async def extend(self, leases: Sequence[Lease]) -> Extensions:
        """Renew leases. A verdict that this version does not know counts as lost, which is the harmless reading."""
        request = pb.ExtendLeasesRequest(
            executor_id=self._executor_id, leases=[lease_message(lease) for lease in leases]
        )
        sent = self._clock.now()
        answer: pb.ExtendLeasesResponse = await self._stub.ExtendLeases(request, timeout=CALL_SECONDS)
        self._look_at_clock(sent, answer.server_time)
        _require_same_length(len(leases), len(answer.extensions))
        verdicts = tuple(_EXTENSIONS.get(item.verdict, ExtensionVerdict.LOST) for item in answer.extensions)
        return Extensions(verdicts, seconds_of(answer.lease))

    async def report(self, reports: Sequence[Report]) -> Sequence[ReportVerdict]:
        """Report outcomes."""
        request = await reports_request(self._executor_id, reports)
        sent = self._clock.now()
        answer: pb.ReportAttemptsResponse = await self._stub.ReportAttempts(request, timeout=CALL_SECONDS)
        self._look_at_clock(sent, answer.server_time)
        _require_same_length(len(reports), len(answer.results))
        return [_REPORTS.get(item.verdict, ReportVerdict.STALE) for item in answer.results]

    async def report_hosts(self, hosts: Sequence[ObservedHost]) -> None:
        """Report what was seen of target hosts."""
        request = pb.ReportTargetHostsRequest(
            executor_id=self._executor_id, target_hosts=[host_message(host) for host in hosts]
        )
        await self._stub.ReportTargetHosts(request, timeout=CALL_SECONDS)

    async def upload(self, lease: Lease, encoding: str, source: AnswerSource) -> str:
        """Store a large answer and return its reference."""

        def parts() -> Iterator[pb.UploadResponseRequest]:
            yield pb.UploadResponseRequest(lease=lease_message(lease), encoding=encoding)
            for chunk in source.chunks():
                yield pb.UploadResponseRequest(chunk=chunk)

        answer: pb.UploadResponseResponse = await self._stub.UploadResponse(parts(), timeout=UPLOAD_SECONDS)
        return answer.blob_id

    def _look_at_clock(self, sent: datetime, server_time: Timestamp) -> None:
        self._estimator.add(sent, instant_of(server_time), self._clock.now())


def _require_same_length(asked: int, answered: int) -> None:
    if asked != answered:
        raise InternalError("ANSWER_MISMATCH", f"asked about {asked} leases, answered about {answered}")
