"""AttemptService: the internal API for executors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sized
from datetime import timedelta

from punctual.internal.v1 import attempt_service_pb2 as pb
from punctual.internal.v1 import attempt_service_pb2_grpc

from libs.common.clock import Clock
from libs.common.errors import DeadlineExceededError, InvalidArgumentError
from libs.common.rpc.timestamps import set_timestamp, to_timestamp
from libs.common.turns import in_turns
from services.scheduler.adapters.rpc.attempt_mapping import from_refusal, to_report, write_grant, write_verdict
from services.scheduler.adapters.rpc.authentication import Context
from services.scheduler.adapters.rpc.target_host_mapping import to_observed_host
from services.scheduler.adapters.rpc.times import to_duration
from services.scheduler.domain.request_body import BodyValues, render_body
from services.scheduler.usecases.answer_blobs import StoreAnswer
from services.scheduler.usecases.begin_attempts import BeginAttempts, BeginBatch, GrantedAttempt
from services.scheduler.usecases.extend_leases import ExtendLeases, LeaseVerdict
from services.scheduler.usecases.grant_details import DescribeGrants, GrantDetails
from services.scheduler.usecases.report_attempts import ReportAttempts
from services.scheduler.usecases.target_hosts import TargetHostStore

MAX_BATCH = 1000
"""Executions that one call may name."""

MAX_CHUNK_BYTES = 256 * 1024
MAX_UPLOAD_SECONDS = 300.0
"""How long an upload may take: what came of one that takes longer is removed some day (see `CHECK_INTERVAL`)."""

_ENCODINGS = frozenset({"", "gzip", "zstd"})
_VERDICTS = {
    LeaseVerdict.EXTENDED: pb.LeaseExtension.VERDICT_EXTENDED,
    LeaseVerdict.LOST: pb.LeaseExtension.VERDICT_LOST,
    LeaseVerdict.CANCEL: pb.LeaseExtension.VERDICT_CANCEL,
}


class AttemptService(attempt_service_pb2_grpc.AttemptServiceServicer):
    """Maps messages to the lease use cases."""

    def __init__(
        self,
        begin: BeginAttempts,
        extend: ExtendLeases,
        report: ReportAttempts,
        describe: DescribeGrants,
        target_hosts: TargetHostStore,
        *,
        store_answer: StoreAnswer,
        clock: Clock,
        lease: timedelta,
    ) -> None:
        self._begin = begin
        self._describe = describe
        self._store_answer = store_answer
        self._target_hosts = target_hosts
        self._extend = extend
        self._report = report
        self._clock = clock
        self._lease = to_duration(lease)

    async def BeginAttempts(self, request: pb.BeginAttemptsRequest, context: Context) -> pb.AttemptBatch:
        """Grant delivered executions."""
        _check_batch(request.execution_ids, "execution_ids")
        batch = await self._begin.begin(
            _known(request.executor_id, "executor_id"),
            _known(request.request_id, "request_id"),
            list(dict.fromkeys(request.execution_ids)),
        )
        return await self._to_message(batch, refusals=True)

    async def PollReady(self, request: pb.PollReadyRequest, context: Context) -> pb.AttemptBatch:
        """Grant executions that no delivery reached."""
        if not 1 <= request.max_attempts <= MAX_BATCH:
            raise InvalidArgumentError.of("max_attempts", "OUT_OF_RANGE", f"is not within 1 to {MAX_BATCH}")
        executor_id = _known(request.executor_id, "executor_id")
        request_id = _known(request.request_id, "request_id")
        if request.repetition:
            begun = await self._begin.begun(request_id)
            if begun.granted:
                return await self._to_message(begun, refusals=False)
        match request.mode:
            case pb.PollReadyRequest.MODE_OVERDUE:
                batch = await self._begin.poll_overdue(executor_id, request_id, request.max_attempts)
            case pb.PollReadyRequest.MODE_ALL:
                batch = await self._begin.poll_all(executor_id, request_id, request.max_attempts)
            case _:
                raise InvalidArgumentError.of("mode", "REQUIRED", "MODE_OVERDUE or MODE_ALL is required")
        return await self._to_message(batch, refusals=False)

    async def ExtendLeases(self, request: pb.ExtendLeasesRequest, context: Context) -> pb.ExtendLeasesResponse:
        """Renew leases."""
        _check_batch(request.leases, "leases")
        # An executor may hold two leases of one execution until it hears that the older one is lost.
        leases: dict[str, int] = {}
        for lease in request.leases:
            leases[lease.execution_id] = max(lease.fencing_token, leases.get(lease.execution_id, 0))
        verdicts = await self._extend(_known(request.executor_id, "executor_id"), leases)
        return pb.ExtendLeasesResponse(
            extensions=[
                pb.LeaseExtension(
                    lease=lease,
                    verdict=(
                        _VERDICTS[verdicts[lease.execution_id]]
                        if lease.fencing_token == leases[lease.execution_id]
                        else pb.LeaseExtension.VERDICT_LOST
                    ),
                )
                for lease in request.leases
            ],
            server_time=to_timestamp(self._clock.now()),
            lease=self._lease,
        )

    async def ReportAttempts(self, request: pb.ReportAttemptsRequest, context: Context) -> pb.ReportAttemptsResponse:
        """Apply outcomes."""
        _check_batch(request.reports, "reports")
        counted = await self._report([to_report(report) async for report in in_turns(request.reports)])
        answer = pb.ReportAttemptsResponse()
        for report in request.reports:
            write_verdict(answer.results.add(), report.lease, counted)
        set_timestamp(answer.server_time, self._clock.now())
        return answer

    async def UploadResponse(
        self, request_iterator: AsyncIterator[pb.UploadResponseRequest], context: Context
    ) -> pb.UploadResponseResponse:
        """Store a large answer."""
        messages = aiter(request_iterator)
        first = await anext(messages, pb.UploadResponseRequest())
        if not first.HasField("lease"):
            raise InvalidArgumentError.of("lease", "REQUIRED", "is required in the first message")
        if first.encoding not in _ENCODINGS:
            raise InvalidArgumentError.of("encoding", "UNKNOWN_ENCODING", "must be empty, gzip or zstd")
        try:
            async with asyncio.timeout(MAX_UPLOAD_SECONDS):
                stored = await self._store_answer(
                    first.lease.execution_id, first.lease.fencing_token, _chunks(first, messages)
                )
        except TimeoutError as error:
            raise DeadlineExceededError("UPLOAD_TOO_SLOW", f"not whole after {MAX_UPLOAD_SECONDS:.0f} s") from error
        return pb.UploadResponseResponse(blob_id=stored.blob_id, size_bytes=stored.size_bytes)

    async def ReportTargetHosts(
        self, request: pb.ReportTargetHostsRequest, context: Context
    ) -> pb.ReportTargetHostsResponse:
        """Take note of what executors know of target hosts."""
        _check_batch(request.target_hosts, "target_hosts")
        await self._target_hosts.observe([to_observed_host(host) for host in request.target_hosts])
        return pb.ReportTargetHostsResponse()

    async def _to_message(self, batch: BeginBatch, *, refusals: bool) -> pb.AttemptBatch:
        details = await self._describe(batch.granted)
        message = pb.AttemptBatch(lease=self._lease, more=batch.more)
        async for granted, of_grant in in_turns(zip(batch.granted, details, strict=True)):
            write_grant(message.grants.add(), granted, _body(granted, of_grant), of_grant)
        if refusals:
            message.refusals.extend(from_refusal(e_id, refusal) for e_id, refusal in batch.refused.items())
        set_timestamp(message.server_time, self._clock.now())
        return message


async def _chunks(
    first: pb.UploadResponseRequest, messages: AsyncIterator[pb.UploadResponseRequest]
) -> AsyncIterator[bytes]:
    """Yield the bytes of an upload."""
    yield first.chunk
    async for message in messages:
        if len(message.chunk) > MAX_CHUNK_BYTES:
            raise InvalidArgumentError.of("chunk", "CHUNK_TOO_LARGE", f"is larger than {MAX_CHUNK_BYTES} bytes")
        yield message.chunk


def _body(granted: GrantedAttempt, details: GrantDetails) -> bytes:
    if granted.execution.callback:
        return granted.execution.callback.body
    definition = granted.job.definition
    return render_body(
        definition.target,
        BodyValues(
            job_id=granted.job.job_id,
            execution_id=granted.execution.execution_id,
            attempt=granted.attempt_number,
            fire_time=granted.execution.slot_time or granted.execution.fire_time,
            time_zone=definition.schedule.time_zone,
            previous_success_time=details.previous_success_time,
        ),
    )


def _known(value: str, field: str) -> str:
    if not value:
        raise InvalidArgumentError.of(field, "REQUIRED", "is required")
    return value


def _check_batch(items: Sized, field: str) -> None:
    if not 1 <= len(items) <= MAX_BATCH:
        raise InvalidArgumentError.of(field, "OUT_OF_RANGE", f"{len(items)} items are not within 1 to {MAX_BATCH}")
