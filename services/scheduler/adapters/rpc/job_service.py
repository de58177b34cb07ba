"""JobService: the public API of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from punctual.v1 import execution_pb2, job_pb2, job_service_pb2_grpc, schedule_pb2
from punctual.v1 import job_service_pb2 as pb

from libs.common.clock import Clock
from libs.common.errors import InvalidArgumentError
from libs.common.instants import from_epoch_millis, to_epoch_millis, truncate_to_millis
from services.scheduler.adapters.rpc.authentication import Authenticator, Context
from services.scheduler.adapters.rpc.batch_mapping import from_outcomes, to_submissions
from services.scheduler.adapters.rpc.execution_mapping import from_execution
from services.scheduler.adapters.rpc.explain_mapping import from_explanation
from services.scheduler.adapters.rpc.job_mapping import from_job
from services.scheduler.adapters.rpc.job_requests import (
    required,
    to_bulk_labels,
    to_job_filter,
    to_submission,
    to_window,
    under_job,
)
from services.scheduler.adapters.rpc.page_tokens import (
    decode_page_token,
    encode_page_token,
    fitting,
    page_size_of,
    read_page,
)
from services.scheduler.adapters.rpc.schedule_mapping import from_fire, to_schedule
from services.scheduler.adapters.rpc.times import to_instant
from services.scheduler.adapters.rpc.update_mask import to_edit
from services.scheduler.domain.job import Job, JobState
from services.scheduler.domain.schedule import TZDATA_VERSION, check_schedule, first_fire, preview
from services.scheduler.usecases.bulk_change_state import BulkChangeState
from services.scheduler.usecases.change_job_state import ChangeJobState
from services.scheduler.usecases.create_jobs import CreateJobs, Submission
from services.scheduler.usecases.explain_job import ExplainJob, PageKey, Window
from services.scheduler.usecases.ports.job_store import JobStore
from services.scheduler.usecases.requested_execution import RequestExecution
from services.scheduler.usecases.update_job import UpdateJob

_MOMENT = timedelta(milliseconds=1)
SHOWN_FIRES = 5
MAX_PREVIEW = 100
DEFAULT_EXPLAINED = 100


@dataclass(frozen=True, slots=True)
class JobUseCases:
    """What the service calls."""

    jobs: JobStore
    create: CreateJobs
    update: UpdateJob
    change_state: ChangeJobState
    bulk_change_state: BulkChangeState
    request: RequestExecution
    explain: ExplainJob
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
            created = await self._do.create.one(caller, to_submission(request))
        except InvalidArgumentError as error:
            raise under_job(error) from error
        return pb.CreateJobResponse(
            job=from_job(created.job, stored=created.replayed or not request.validate_only),
            next_fires=self._next_fires(created.job),
            replayed=created.replayed,
        )

    async def BatchCreateJobs(self, request: pb.BatchCreateJobsRequest, context: Context) -> pb.BatchCreateJobsResponse:
        """Create many jobs."""
        caller = await self._authenticator.authenticate(context)
        submissions = to_submissions(request)
        outcomes = await self._do.create.many(caller, [item for item in submissions if isinstance(item, Submission)])
        return from_outcomes(submissions, outcomes)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> job_pb2.Job:
        """Return one job."""
        caller = await self._authenticator.authenticate(context)
        return from_job(await self._do.jobs.get(caller.scope, required(request.job_id, "job_id")))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Return a page of jobs."""
        caller = await self._authenticator.authenticate(context)
        size = page_size_of(request)
        key = decode_page_token(request)
        where = to_job_filter(request)

        async def read(after: str, limit: int) -> Sequence[Job]:
            return await self._do.jobs.find_page(caller.scope, where, after=after, limit=limit)

        shown, last_id = await read_page(
            read, from_job, lambda job: job.job_id, after=str(key[0]) if key else "", size=size
        )
        return pb.ListJobsResponse(jobs=shown, next_page_token=encode_page_token([last_id], request) if last_id else "")

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Context) -> pb.UpdateJobResponse:
        """Change a job."""
        caller = await self._authenticator.authenticate(context)
        job_id = required(request.job.job_id, "job.job_id")
        edit = to_edit(request)
        try:
            job = await self._do.update(
                caller, job_id, edit, etag=request.job.etag, validate_only=request.validate_only
            )
        except InvalidArgumentError as error:
            raise under_job(error) from error
        return pb.UpdateJobResponse(job=from_job(job), next_fires=self._next_fires(job))

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> job_pb2.Job:
        """Delete a job."""
        caller = await self._authenticator.authenticate(context)
        job_id = required(request.job_id, "job_id")
        return from_job(await self._do.change_state.delete(caller, job_id, etag=request.etag))

    async def PauseJob(self, request: pb.PauseJobRequest, context: Context) -> job_pb2.Job:
        """Pause a job."""
        caller = await self._authenticator.authenticate(context)
        job_id = required(request.job_id, "job_id")
        return from_job(await self._do.change_state.pause(caller, job_id, etag=request.etag, note=request.note))

    async def ResumeJob(self, request: pb.ResumeJobRequest, context: Context) -> job_pb2.Job:
        """Resume a job."""
        caller = await self._authenticator.authenticate(context)
        job_id = required(request.job_id, "job_id")
        return from_job(await self._do.change_state.resume(caller, job_id, etag=request.etag))

    async def BulkPauseJobs(self, request: pb.BulkPauseJobsRequest, context: Context) -> pb.BulkPauseJobsResponse:
        """Pause many jobs."""
        caller = await self._authenticator.authenticate(context)
        labels = to_bulk_labels(request.labels)
        done = await self._do.bulk_change_state.pause(caller, request.project_id, labels, request.note)
        return pb.BulkPauseJobsResponse(changed_count=done.changed_count, more=done.more)

    async def BulkResumeJobs(self, request: pb.BulkResumeJobsRequest, context: Context) -> pb.BulkResumeJobsResponse:
        """Resume many jobs."""
        caller = await self._authenticator.authenticate(context)
        done = await self._do.bulk_change_state.resume(caller, request.project_id, to_bulk_labels(request.labels))
        return pb.BulkResumeJobsResponse(
            changed_count=done.changed_count, more=done.more, unresumable_count=done.unresumable_count
        )

    async def RunJob(self, request: pb.RunJobRequest, context: Context) -> execution_pb2.Execution:
        """Start an execution now."""
        caller = await self._authenticator.authenticate(context)
        execution = await self._do.request.run(
            caller,
            required(request.job_id, "job_id"),
            allow_inactive=request.allow_inactive,
            idempotency_key=request.idempotency_key,
        )
        return from_execution(execution, content=False)

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
        if not request.HasField("after"):
            after = _from_first(first_fire(schedule, after), after)
        fires = preview(schedule, after, count)
        return pb.PreviewScheduleResponse(fires=[from_fire(fire) for fire in fires], tzdata_version=TZDATA_VERSION)

    async def ExplainJob(self, request: pb.ExplainJobRequest, context: Context) -> pb.ExplainJobResponse:
        """Answer why a job did or did not run."""
        caller = await self._authenticator.authenticate(context)
        job_id = required(request.job_id, "job_id")
        size = page_size_of(request, DEFAULT_EXPLAINED)
        window, after = self._explained_part(request)
        page = await self._do.explain(caller, job_id, window, after=after, limit=size)
        shown = fitting(from_explanation(explanation) for explanation in page.explanations)
        next_key = page.next_key if len(shown) == len(page.explanations) else page.explanations[len(shown) - 1].key
        return pb.ExplainJobResponse(
            explanations=shown, next_page_token=_explain_token(request, window, next_key) if next_key else ""
        )

    def _explained_part(self, request: pb.ExplainJobRequest) -> tuple[Window, PageKey | None]:
        """Return the window, and where in it to go on; it stays the first page's, though its defaults follow now."""
        key = decode_page_token(request, (int, str, int, int))
        if not key:
            return to_window(request, truncate_to_millis(self._do.clock.now())), None
        start, end = from_epoch_millis(int(key[2])), from_epoch_millis(int(key[3]))
        return Window.of(start, end, end), (from_epoch_millis(int(key[0])), str(key[1]))

    def _next_fires(self, job: Job) -> list[schedule_pb2.Fire]:
        if job.state is not JobState.ACTIVE or job.next_fire_time is None:
            return []
        after = _from_first(job.next_fire_time, self._do.clock.now())
        return [from_fire(fire) for fire in preview(job.definition.schedule, after, SHOWN_FIRES)]


def _from_first(fire: datetime | None, now: datetime) -> datetime:
    """Return from when fires are shown: now, or before the first one, which may lie a moment in the past (one-time)."""
    return now if fire is None else min(fire - _MOMENT, now)


def _explain_token(request: pb.ExplainJobRequest, window: Window, after: PageKey) -> str:
    fire_time, execution_id = after
    millis = [to_epoch_millis(instant) for instant in (fire_time, window.start, window.end)]
    return encode_page_token([millis[0], execution_id, *millis[1:]], request)
