"""`punctual jobs pause` and `resume`: some jobs by id, or all of a project or with labels, with progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer
from punctual.v1.job_service_pb2 import BulkPauseJobsResponse, BulkResumeJobsResponse

from libs.client.cli.flag_values import pairs
from libs.client.cli.job_views import JOB_CARD
from libs.client.cli.output import Column
from libs.client.cli.session import Session

SomeJobs = Annotated[list[str] | None, typer.Argument(help="The jobs' ids; none with --all.", metavar="[JOB...]")]

PAUSED_CARD: list[Column[BulkPauseJobsResponse]] = [
    Column("paused", lambda answer: str(answer.changed_count)),
]
RESUMED_CARD: list[Column[BulkResumeJobsResponse]] = [
    Column("resumed", lambda answer: str(answer.changed_count)),
    Column("without a further fire", lambda answer: str(answer.unresumable_count)),
]


@dataclass(frozen=True)
class BulkFlags:
    """Which jobs a bulk change is about."""

    all_jobs: Annotated[bool, typer.Option("--all", help="All jobs of --project and with --label.")] = False
    project: Annotated[str, typer.Option(help="With --all: of this project.")] = ""
    label: Annotated[
        list[str], typer.Option(help="With --all: with this label; may be repeated.", metavar="KEY=VALUE")
    ] = field(default_factory=list)

    def check(self, jobs: list[str]) -> None:
        """Refuse a mixture of both ways, and a bulk change of everything, which is never meant.

        Raises:
            typer.BadParameter: it is one of these.
        """
        narrowed = bool(self.project or self.label)
        if self.all_jobs and (jobs or not narrowed):
            raise typer.BadParameter("--all needs --project or --label, and no ids")
        if not self.all_jobs and (narrowed or not jobs):
            raise typer.BadParameter("give the jobs' ids, or --all with --project or --label")


async def pause(
    session: Session,
    bulk: BulkFlags,
    jobs: SomeJobs = None,
    note: Annotated[str, typer.Option(help="Why; the job's explanation shows it.")] = "",
    etag: Annotated[str, typer.Option(help="Refuse if the job has changed since it had this etag.")] = "",
) -> None:
    """Pause jobs: fires that have not begun are skipped."""
    ids = jobs or []
    bulk.check(ids)
    if not bulk.all_jobs:
        await session.for_each(ids, lambda job: session.client.jobs.pause(job, note=note, etag=etag), JOB_CARD)
        return
    total = BulkPauseJobsResponse()
    answers = session.client.jobs.bulk_pause(project_id=bulk.project, labels=pairs(bulk.label, "--label"), note=note)
    with session.printer.progress(None) as progress:
        task = progress.add_task("pausing", total=None)
        async for answer in answers:
            total.changed_count += answer.changed_count
            total.more = answer.more
            progress.update(task, completed=total.changed_count)
    session.printer.show(total, PAUSED_CARD)


async def resume(
    session: Session,
    bulk: BulkFlags,
    jobs: SomeJobs = None,
    etag: Annotated[str, typer.Option(help="Refuse if the job has changed since it had this etag.")] = "",
) -> None:
    """Resume paused or failed jobs, from now on."""
    ids = jobs or []
    bulk.check(ids)
    if not bulk.all_jobs:
        await session.for_each(ids, lambda job: session.client.jobs.resume(job, etag=etag), JOB_CARD)
        return
    total = BulkResumeJobsResponse()
    answers = session.client.jobs.bulk_resume(project_id=bulk.project, labels=pairs(bulk.label, "--label"))
    with session.printer.progress(None) as progress:
        task = progress.add_task("resuming", total=None)
        async for answer in answers:
            total.changed_count += answer.changed_count
            # Each call counts all of them anew.
            total.unresumable_count = max(total.unresumable_count, answer.unresumable_count)
            total.more = answer.more
            progress.update(task, completed=total.changed_count)
    session.printer.show(total, RESUMED_CARD)
