"""Jobs from files, as protobuf JSON: `create --batch` and `apply`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import typer
from google.protobuf import json_format
from punctual.v1.job_pb2 import Job
from punctual.v1.job_service_pb2 import BatchCreateJobsResult, CreateJobRequest

from libs.client.cli.exit_codes import ExitCode
from libs.client.cli.flag_values import read_text
from libs.client.cli.job_views import BATCH_ROW, CREATED_CARD, UPDATED_CARD
from libs.client.cli.session import Session
from libs.common.errors import PunctualError


async def create_batch(session: Session, path: str, how: CreateJobRequest) -> None:
    """Create a job for each line of a file; `how` is what all requests share.

    The whole file is read before the first call, so that a line that does not parse leaves nothing half done. With an
    idempotency key each line has a key of its own: the same file, given again, creates only what is missing.
    """
    requests = _batch_requests(path, how)

    async def results() -> AsyncIterator[BatchCreateJobsResult]:
        with session.printer.progress(len(requests)) as progress:
            task = progress.add_task("creating", total=len(requests))
            async for result in session.client.jobs.batch_create(requests):
                progress.advance(task)
                if result.HasField("error"):
                    session.exit_code = ExitCode.REFUSED
                yield result

    await session.printer.show_all(results(), BATCH_ROW)


def _batch_requests(path: str, how: CreateJobRequest) -> list[CreateJobRequest]:
    requests = []
    for number, line in enumerate(read_text(path, "--batch").splitlines(), start=1):
        if not line.strip():
            continue
        request = CreateJobRequest()
        request.CopyFrom(how)
        request.job.CopyFrom(_parsed(line, f"{path}, line {number}"))
        request.job.project_id = request.job.project_id or how.job.project_id
        if how.idempotency_key:
            request.idempotency_key = f"{how.idempotency_key}-{number}"
        requests.append(request)
    if not requests:
        raise typer.BadParameter(f"{path} holds no jobs", param_hint="--batch")
    return requests


async def apply(
    session: Session,
    file: Annotated[
        str,
        typer.Option("--file", "-f", help="A job or an array of jobs as protobuf JSON; - reads stdin.", metavar="FILE"),
    ],
) -> None:
    """Create the jobs of a file, or bring those that exist to what it says.

    A job is known by its jobId, else by its name within its project. What the file leaves out returns to its default.
    """
    for job in _jobs_of(file):
        try:
            await _apply_one(session, job)
        except PunctualError as error:
            session.failed(error)


async def _apply_one(session: Session, job: Job) -> None:
    if not job.job_id:
        same = await _same_name(session, job)
        if len(same) > 1:
            raise typer.BadParameter(f"{len(same)} jobs are named {job.name!r}: put the jobId into the file")
        if not same:
            session.printer.show(await session.client.jobs.create(job), CREATED_CARD)
            return
        job.job_id = same[0].job_id
        # Found by reading: the write must not replace what somebody changes in between.
        job.etag = job.etag or same[0].etag
    session.printer.show(await session.client.jobs.update(job, update_mask=["*"]), UPDATED_CARD)


async def _same_name(session: Session, job: Job) -> Sequence[Job]:
    listed = session.client.jobs.list(project_id=job.project_id or "default", name_prefix=job.name)
    return [other async for other in listed if other.name == job.name]


def _jobs_of(path: str) -> list[Job]:
    text = read_text(path, "--file")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}", param_hint="--file") from error
    items = value if isinstance(value, list) else [value]
    return [_parsed(json.dumps(item), path) for item in items]


def _parsed(text: str, where: str) -> Job:
    try:
        return json_format.Parse(text, Job())
    except json_format.ParseError as error:
        raise typer.BadParameter(f"{where}: {error}") from error
