"""The calls of JobService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import datetime
from typing import TypeAlias

from google.protobuf.field_mask_pb2 import FieldMask
from grpc import aio
from punctual.v1 import job_service_pb2 as pb
from punctual.v1.execution_pb2 import Execution
from punctual.v1.job_pb2 import Job
from punctual.v1.job_service_pb2_grpc import JobServiceStub
from punctual.v1.schedule_pb2 import Schedule

from libs.client.batches import batches
from libs.client.calls import Calls
from libs.client.paging import Paged
from libs.client.timestamps import timestamp
from libs.common.ids import new_id

JobPages: TypeAlias = Paged[pb.ListJobsRequest, pb.ListJobsResponse, Job]
ExplanationPages: TypeAlias = Paged[pb.ExplainJobRequest, pb.ExplainJobResponse, pb.FireExplanation]


class Jobs:
    """Creates, changes and inspects jobs."""

    def __init__(self, channel: aio.Channel, calls: Calls) -> None:
        self._stub = JobServiceStub(channel)
        self._calls = calls

    async def create(
        self, job: Job, *, idempotency_key: str = "", validate_only: bool = False, allow_duplicate: bool = False
    ) -> pb.CreateJobResponse:
        """Create a job.

        Without a key of the caller's a fresh one is sent, so that a retry inside this call cannot create a second job.
        A caller who may come back after a crash passes a key of its own.
        """
        request = pb.CreateJobRequest(
            job=job,
            idempotency_key=idempotency_key or new_id(),
            validate_only=validate_only,
            allow_duplicate=allow_duplicate,
        )
        return await self._calls.unary(self._stub.CreateJob, request)

    async def batch_create(
        self, requests: Iterable[pb.CreateJobRequest]
    ) -> AsyncGenerator[pb.BatchCreateJobsResult, None]:
        """Create many jobs, in as many calls as it takes; yield each one's result in the order of the requests.

        Requests without an idempotency key get a fresh one. An error of a whole call is raised; results that were
        yielded stand.
        """
        for batch in batches(requests):
            answer = await self._calls.unary(self._stub.BatchCreateJobs, batch)
            for result in answer.results:
                yield result

    async def get(self, job_id: str) -> Job:
        """Return one job."""
        return await self._calls.unary(self._stub.GetJob, pb.GetJobRequest(job_id=job_id))

    def list(
        self,
        *,
        project_id: str = "",
        states: Iterable[Job.State.ValueType] = (),
        labels: Mapping[str, str] | None = None,
        name_prefix: str = "",
        target_host: str = "",
        next_fire_after: datetime | None = None,
        next_fire_before: datetime | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> JobPages:
        """List jobs, newest first."""
        request = pb.ListJobsRequest(
            project_id=project_id,
            states=states,
            labels=labels,
            name_prefix=name_prefix,
            target_host=target_host,
            next_fire_after=timestamp(next_fire_after),
            next_fire_before=timestamp(next_fire_before),
            page_size=page_size,
            page_token=page_token,
        )
        return Paged(self._calls, self._stub.ListJobs, request, lambda page: page.jobs)

    async def update(
        self, job: Job, *, update_mask: Iterable[str] = (), validate_only: bool = False
    ) -> pb.UpdateJobResponse:
        """Change the fields that the mask names, or the populated ones; the job's `etag`, where set, guards the write.

        Never retried: after a lost answer, read the job and compare.
        """
        paths = tuple(update_mask)
        request = pb.UpdateJobRequest(
            job=job, update_mask=FieldMask(paths=paths) if paths else None, validate_only=validate_only
        )
        return await self._calls.unary(self._stub.UpdateJob, request)

    async def delete(self, job_id: str, *, etag: str = "") -> Job:
        """Delete a job: it stops at once, its history stays until the purge."""
        return await self._calls.unary(self._stub.DeleteJob, pb.DeleteJobRequest(job_id=job_id, etag=etag))

    async def pause(self, job_id: str, *, note: str = "", etag: str = "") -> Job:
        """Pause a job, with a note that says why."""
        return await self._calls.unary(self._stub.PauseJob, pb.PauseJobRequest(job_id=job_id, etag=etag, note=note))

    async def resume(self, job_id: str, *, etag: str = "") -> Job:
        """Make a PAUSED or FAILED job ACTIVE from now on."""
        return await self._calls.unary(self._stub.ResumeJob, pb.ResumeJobRequest(job_id=job_id, etag=etag))

    async def bulk_pause(
        self, *, project_id: str = "", labels: Mapping[str, str] | None = None, note: str = ""
    ) -> AsyncGenerator[pb.BulkPauseJobsResponse, None]:
        """Pause the jobs of a project or with labels, in as many calls as it takes; yield what each call did."""
        request = pb.BulkPauseJobsRequest(project_id=project_id, labels=labels, note=note)
        while True:
            answer = await self._calls.unary(self._stub.BulkPauseJobs, request)
            yield answer
            # A call that changed nothing will change nothing the next time either.
            if not answer.more or not answer.changed_count:
                return

    async def bulk_resume(
        self, *, project_id: str = "", labels: Mapping[str, str] | None = None
    ) -> AsyncGenerator[pb.BulkResumeJobsResponse, None]:
        """Resume the jobs of a project or with labels, in as many calls as it takes; yield what each call did."""
        request = pb.BulkResumeJobsRequest(project_id=project_id, labels=labels)
        while True:
            answer = await self._calls.unary(self._stub.BulkResumeJobs, request)
            yield answer
            if not answer.more or not answer.changed_count:
                return

    async def run(self, job_id: str, *, allow_inactive: bool = False, idempotency_key: str = "") -> Execution:
        """Start an execution now; a fresh idempotency key is sent where the caller gives none."""
        request = pb.RunJobRequest(
            job_id=job_id, allow_inactive=allow_inactive, idempotency_key=idempotency_key or new_id()
        )
        return await self._calls.unary(self._stub.RunJob, request)

    async def preview(
        self, schedule: Schedule, *, count: int = 0, after: datetime | None = None
    ) -> pb.PreviewScheduleResponse:
        """Return the next fires of a schedule that need not be stored."""
        request = pb.PreviewScheduleRequest(schedule=schedule, count=count, after=timestamp(after))
        return await self._calls.unary(self._stub.PreviewSchedule, request)

    def explain(
        self,
        job_id: str,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> ExplanationPages:
        """List every fire of a window, oldest first, with its decision and reason."""
        request = pb.ExplainJobRequest(
            job_id=job_id,
            start_time=timestamp(start_time),
            end_time=timestamp(end_time),
            page_size=page_size,
            page_token=page_token,
        )
        return Paged(self._calls, self._stub.ExplainJob, request, lambda page: page.explanations)
