"""`punctual jobs`: the commands that deal with one job, and the list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer
from punctual.v1.job_service_pb2 import CreateJobRequest

from libs.client.cli import job_files
from libs.client.cli.choices import JobState, job_states
from libs.client.cli.execution_views import EXECUTION_CARD
from libs.client.cli.flag_values import moment, pairs
from libs.client.cli.job_flags import JobFlags
from libs.client.cli.job_views import CREATED_CARD, EXPLANATION_ROW, FIRE_ROW, JOB_CARD, JOB_ROW, UPDATED_CARD
from libs.client.cli.listing import Limit, listed
from libs.client.cli.schedule_flags import ScheduleFlags
from libs.client.cli.session import Session

JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]
JobIds = Annotated[list[str], typer.Argument(help="The jobs' ids.", metavar="JOB...")]
Etag = Annotated[str, typer.Option(help="Refuse if the job has changed since it had this etag.")]
ValidateOnly = Annotated[bool, typer.Option("--validate-only", help="Check everything and store nothing.")]


@dataclass(frozen=True)
class CreateFlags:
    """How `create` creates."""

    project: Annotated[str, typer.Option(help="The project. Default: default.")] = ""
    idempotency_key: Annotated[
        str, typer.Option(help="The same key creates once. With --batch the line's number is added to it.")
    ] = ""
    allow_duplicate: Annotated[
        bool, typer.Option("--allow-duplicate", help="Allow what equals a job created a moment ago.")
    ] = False
    batch: Annotated[
        str | None,
        typer.Option(help="Create a job for each line of protobuf JSON in a file; - reads stdin.", metavar="FILE"),
    ] = None


@dataclass(frozen=True)
class JobFilter:
    """Which jobs are listed."""

    project: Annotated[str, typer.Option(help="Only this project.")] = ""
    state: Annotated[
        list[JobState],
        typer.Option(case_sensitive=False, help="Only this state; may be repeated. Default: all but deleted."),
    ] = field(default_factory=list)
    label: Annotated[
        list[str], typer.Option(help="Only jobs with this label; may be repeated.", metavar="KEY=VALUE")
    ] = field(default_factory=list)
    name_prefix: Annotated[str, typer.Option(help="Only names that begin with this.")] = ""
    target_host: Annotated[str, typer.Option(help="Only jobs that POST to this host.")] = ""
    next_fire_after: Annotated[
        str | None, typer.Option(help="Only next fires from then on: RFC 3339, or +2h.", metavar="TIME")
    ] = None
    next_fire_before: Annotated[
        str | None, typer.Option(help="Only next fires before: RFC 3339, or +2h.", metavar="TIME")
    ] = None


async def create(
    session: Session, job: JobFlags, schedule: ScheduleFlags, how: CreateFlags, validate_only: ValidateOnly = False
) -> None:
    """Create a job, or many with --batch."""
    definition, mask = job.definition(schedule)
    request = CreateJobRequest(
        job=definition,
        idempotency_key=how.idempotency_key,
        validate_only=validate_only,
        allow_duplicate=how.allow_duplicate,
    )
    request.job.project_id = how.project
    if how.batch is not None:
        if mask.paths:
            raise typer.BadParameter("with --batch the file says what the jobs are; leave their flags out")
        await job_files.create_batch(session, how.batch, request)
        return
    created = await session.client.jobs.create(
        request.job,
        idempotency_key=request.idempotency_key,
        validate_only=validate_only,
        allow_duplicate=how.allow_duplicate,
    )
    session.printer.show(created, CREATED_CARD)


async def get(session: Session, jobs: JobIds) -> None:
    """Show jobs."""
    await session.for_each(jobs, session.client.jobs.get, JOB_CARD)


async def list_jobs(session: Session, only: JobFilter, limit: Limit = 50) -> None:
    """List jobs, newest first."""
    jobs = session.client.jobs.list(
        project_id=only.project,
        states=job_states(only.state),
        labels=pairs(only.label, "--label"),
        name_prefix=only.name_prefix,
        target_host=only.target_host,
        next_fire_after=moment(only.next_fire_after, "--next-fire-after"),
        next_fire_before=moment(only.next_fire_before, "--next-fire-before"),
        page_size=listed(limit),
    )
    await session.printer.show_all(jobs, JOB_ROW, limit=limit)


async def update(
    session: Session,
    job_id: JobId,
    job: JobFlags,
    schedule: ScheduleFlags,
    *,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
) -> None:
    """Change what the flags name; the schedule, the headers and the labels are replaced as a whole."""
    definition, mask = job.definition(schedule)
    if not mask.paths:
        raise typer.BadParameter("give at least one flag that says what to change")
    definition.job_id = job_id
    definition.etag = etag
    changed = await session.client.jobs.update(definition, update_mask=mask.paths, validate_only=validate_only)
    session.printer.show(changed, UPDATED_CARD)


async def delete(session: Session, jobs: JobIds, etag: Etag = "") -> None:
    """Delete jobs: they stop at once, their history stays until the purge."""
    await session.for_each(jobs, lambda job_id: session.client.jobs.delete(job_id, etag=etag), JOB_CARD)


async def run(
    session: Session,
    job_id: JobId,
    allow_inactive: Annotated[
        bool, typer.Option("--allow-inactive", help="Also when the job is paused, failed or completed.")
    ] = False,
    idempotency_key: Annotated[str, typer.Option(help="The same key starts one execution.")] = "",
) -> None:
    """Start an execution now."""
    execution = await session.client.jobs.run(job_id, allow_inactive=allow_inactive, idempotency_key=idempotency_key)
    session.printer.show(execution, EXECUTION_CARD)


async def preview(
    session: Session,
    schedule: ScheduleFlags,
    count: Annotated[int, typer.Option(min=1, max=100, help="How many fires.")] = 5,
    after: Annotated[str | None, typer.Option(help="Fires after: RFC 3339, or +2h.", metavar="TIME")] = None,
) -> None:
    """Show when a schedule fires; nothing is stored."""
    answer = await session.client.jobs.preview(
        schedule.required_schedule(), count=count, after=moment(after, "--after")
    )
    session.printer.show_list(answer.fires, FIRE_ROW)


async def explain(
    session: Session,
    job_id: JobId,
    since: Annotated[
        str | None, typer.Option(help="From: RFC 3339, or 2h ago. Default: a day.", metavar="TIME")
    ] = None,
    until: Annotated[str | None, typer.Option(help="To: RFC 3339, or +2h ahead. Default: +1h.", metavar="TIME")] = None,
    limit: Limit = 100,
) -> None:
    """Say why a job did or did not run: every fire with its decision and reason."""
    fires = session.client.jobs.explain(
        job_id, start_time=moment(since, "--since"), end_time=moment(until, "--until"), page_size=listed(limit)
    )
    await session.printer.show_all(fires, EXPLANATION_ROW, limit=limit)
