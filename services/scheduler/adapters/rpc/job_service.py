"""JobService: the public API of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from punctual.v1 import execution_pb2, job_pb2, job_service_pb2_grpc, schedule_pb2
from punctual.v1 import job_service_pb2 as pb

from libs.common.clock import Clock
from libs.common.errors import InvalidArgumentError, UnimplementedError
from services.scheduler.adapters.rpc.authentication import Authenticator, Context
from services.scheduler.adapters.rpc.execution_mapping import from_execution
from services.scheduler.adapters.rpc.job_mapping import from_job, to_definition, to_job_state
from services.scheduler.adapters.rpc.page_tokens import decode_page_token, encode_page_token, page_size_of
from services.scheduler.adapters.rpc.schedule_mapping import from_fire, to_schedule
from services.scheduler.adapters.rpc.times import to_instant
from services.scheduler.domain.job import Job, JobState
from services.scheduler.domain.schedule import TZDATA_VERSION, check_schedule, preview
from services.scheduler.usecases.change_job_state import ChangeJobState
from services.scheduler.usecases.create_job import CreateJob
from services.scheduler.usecases.ports import JobFilter, JobStore
from services.scheduler.usecases.run_job import RunJob

_MOMENT = timedelta(milliseconds=1)
SHOWN_FIRES = 5
MAX_PREVIEW = 100


@dataclass(frozen=True, slots=True)
class JobUseCases:
    """What the service calls."""

    jobs: JobStore
    create: CreateJob
    change_state: ChangeJobState
    run: RunJob
    clock: Clock


class JobService(job_service_pb2_grpc.JobServiceServicer):
    """Maps messages to use cases; authentication is the first line of every method."""

    def __init__(self, use_cases: JobUseCases, authenticator: Authenticator) -> None:
        self._do = use_cases
        self._authenticator = authenticator

    async def CreateJob(self, request: pb.CreateJobRequest, context: Context) -> pb.CreateJobResponse:
        """Create a job."""
        caller = await self._authenticator.authenticate(context)
        try:
            created = await self._do.create(
                caller,
                to_definition(request.job),
                idempotency_key=request.idempotency_key,
                validate_only=request.validate_only,
            )
        except InvalidArgumentError as error:
            raise _under_job(error) from error
        return pb.CreateJobResponse(
            job=from_job(created.job), next_fires=self._next_fires(created.job), replayed=created.replayed
        )

    async def BatchCreateJobs(self, request: pb.BatchCreateJobsRequest, context: Context) -> pb.BatchCreateJobsResponse:
        """Create many jobs."""
        raise _later("BatchCreateJobs")

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> job_pb2.Job:
        """Return one job."""
        caller = await self._authenticator.authenticate(context)
        return from_job(await self._do.jobs.get(caller.scope, _required(request.job_id, "job_id")))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Return a page of jobs."""
        caller = await self._authenticator.authenticate(context)
        size = page_size_of(request)
        after = decode_page_token(request)
        jobs = await self._do.jobs.find_page(
            caller.scope, _to_filter(request), after=str(after[0]) if after else "", limit=size + 1
        )
        more = len(jobs) > size
        return pb.ListJobsResponse(
            jobs=[from_job(job) for job in jobs[:size]],
            next_page_token=encode_page_token([jobs[size - 1].job_id], request) if more else "",
        )

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Context) -> pb.UpdateJobResponse:
        """Change a job."""
        raise _later("UpdateJob")

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> job_pb2.Job:
        """Delete a job."""
        caller = await self._authenticator.authenticate(context)
        job_id = _required(request.job_id, "job_id")
        return from_job(await self._do.change_state.delete(caller, job_id, etag=request.etag))

    async def PauseJob(self, request: pb.PauseJobRequest, context: Context) -> job_pb2.Job:
        """Pause a job."""
        caller = await self._authenticator.authenticate(context)
        job_id = _required(request.job_id, "job_id")
        return from_job(await self._do.change_state.pause(caller, job_id, etag=request.etag, note=request.note))

    async def ResumeJob(self, request: pb.ResumeJobRequest, context: Context) -> job_pb2.Job:
        """Resume a job."""
        caller = await self._authenticator.authenticate(context)
        job_id = _required(request.job_id, "job_id")
        return from_job(await self._do.change_state.resume(caller, job_id, etag=request.etag))

    async def BulkPauseJobs(self, request: pb.BulkPauseJobsRequest, context: Context) -> pb.BulkPauseJobsResponse:
        """Pause many jobs."""
        raise _later("BulkPauseJobs")

    async def BulkResumeJobs(self, request: pb.BulkResumeJobsRequest, context: Context) -> pb.BulkResumeJobsResponse:
        """Resume many jobs."""
        raise _later("BulkResumeJobs")

    async def RunJob(self, request: pb.RunJobRequest, context: Context) -> execution_pb2.Execution:
        """Start an execution now."""
        caller = await self._authenticator.authenticate(context)
        execution = await self._do.run(
            caller,
            _required(request.job_id, "job_id"),
            allow_inactive=request.allow_inactive,
            idempotency_key=request.idempotency_key,
        )
        return from_execution(execution)

    async def PreviewSchedule(self, request: pb.PreviewScheduleRequest, context: Context) -> pb.PreviewScheduleResponse:
        """Return the next fires of a schedule that need not be stored."""
        await self._authenticator.authenticate(context)
        count = request.count or SHOWN_FIRES
        if not 1 <= count <= MAX_PREVIEW:
            raise InvalidArgumentError.of("count", "OUT_OF_RANGE", f"{count} is not within 1 to {MAX_PREVIEW}")
        after = to_instant(request.after, "after") if request.HasField("after") else self._do.clock.now()
        try:
            schedule = to_schedule(request.schedule)
            check_schedule(schedule, after)
        except InvalidArgumentError as error:
            raise error.under("schedule") from error
        fires = preview(schedule, after, count)
        return pb.PreviewScheduleResponse(fires=[from_fire(fire) for fire in fires], tzdata_version=TZDATA_VERSION)

    async def ExplainJob(self, request: pb.ExplainJobRequest, context: Context) -> pb.ExplainJobResponse:
        """Answer why a job did or did not run."""
        raise _later("ExplainJob")

    def _next_fires(self, job: Job) -> list[schedule_pb2.Fire]:
        if job.state is not JobState.ACTIVE or job.next_fire_time is None:
            return []
        # The first fire may lie a moment in the past (one-time, within its tolerance), so it is asked from before it.
        after = min(job.next_fire_time - _MOMENT, self._do.clock.now())
        return [from_fire(fire) for fire in preview(job.definition.schedule, after, SHOWN_FIRES)]


def _to_filter(request: pb.ListJobsRequest) -> JobFilter:
    return JobFilter(
        project_id=request.project_id,
        states=frozenset(to_job_state(state, "states") for state in request.states),
        labels=dict(request.labels),
        name_prefix=request.name_prefix,
        target_host=request.target_host,
        next_fire_after=(
            to_instant(request.next_fire_after, "next_fire_after") if request.HasField("next_fire_after") else None
        ),
        next_fire_before=(
            to_instant(request.next_fire_before, "next_fire_before") if request.HasField("next_fire_before") else None
        ),
    )


def _under_job(error: InvalidArgumentError) -> InvalidArgumentError:
    """Put the paths of a definition's violations below `job`; the request's own fields stay as they are."""
    own = {"idempotency_key"}
    return InvalidArgumentError([v if v.field in own else v.under("job") for v in error.violations])


def _required(value: str, field: str) -> str:
    if not value:
        raise InvalidArgumentError.of(field, "REQUIRED", "is required")
    return value


def _later(method: str) -> UnimplementedError:
    return UnimplementedError("METHOD_NOT_IMPLEMENTED", f"{method} is not there yet", metadata={"method": method})
