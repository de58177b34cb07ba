"""Pauses and resumes many jobs: each on its own, as the single calls do, a bounded number of them a call.

Jobs that a call changed no longer match its filter, so the caller repeats it until nothing is left; no cursor is kept,
and jobs that others change meanwhile are neither missed nor changed twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from libs.common.errors import AbortedError, FailedPreconditionError, InvalidArgumentError
from services.scheduler.domain.job import Job, JobState
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.change_job_state import ChangeJobState, check_note
from services.scheduler.usecases.ports.job_store import JobFilter, JobStore

MAX_CHANGES = 1000
PAGE = 100
"""Jobs that are read at a time: each may have most of a MiB."""
MAX_PAGES = 100
"""Pages of jobs that one call looks at: only those that cannot be resumed make it look at more than it changes."""

CONCURRENCY = 16


@dataclass(frozen=True, slots=True)
class BulkChange:
    """What one call did."""

    changed_count: int = 0
    unresumable_count: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class BulkChangeState:
    """Serves BulkPauseJobs and BulkResumeJobs."""

    jobs: JobStore
    change_state: ChangeJobState

    async def pause(self, caller: Caller, project_id: str, labels: Mapping[str, str], note: str) -> BulkChange:
        """Pause the ACTIVE jobs of a project or with labels.

        Raises:
            InvalidArgumentError: neither is given, or the note is too long.
        """
        check_note(note)
        where = _filter(project_id, labels, JobState.ACTIVE)
        return await self._change(caller, where, lambda job: self.change_state.pause_found(caller, job, note=note))

    async def resume(self, caller: Caller, project_id: str, labels: Mapping[str, str]) -> BulkChange:
        """Resume the PAUSED jobs of a project or with labels that have a further fire.

        Raises:
            InvalidArgumentError: neither is given.
        """
        where = _filter(project_id, labels, JobState.PAUSED)
        return await self._change(caller, where, lambda job: self.change_state.resume_found(caller, job))

    async def _change(self, caller: Caller, where: JobFilter, change: Callable[[Job], Awaitable[Job]]) -> BulkChange:
        done, after = BulkChange(), ""
        for _ in range(MAX_PAGES):
            room = min(MAX_CHANGES - done.changed_count, PAGE)
            found = await self.jobs.find_page(caller.scope, where, after=after, limit=room + 1)
            page = found[:room]
            changed, unresumable, undecided = await _change_page(page, change)
            done = BulkChange(
                changed_count=done.changed_count + changed,
                unresumable_count=done.unresumable_count + unresumable,
                more=done.more or undecided > 0,
            )
            if len(found) <= room:
                return done
            if done.changed_count == MAX_CHANGES:
                break
            after = page[-1].job_id
        # Without progress there is nothing to come back for: a caller that repeats must come to an end.
        return replace(done, more=done.changed_count > 0)


async def _change_page(jobs: Sequence[Job], change: Callable[[Job], Awaitable[Job]]) -> tuple[int, int, int]:
    """Change jobs, some at a time; returns how many were changed, have no further fire, and lost too many races."""
    changed = unresumable = undecided = 0
    waiting = iter(jobs)

    async def work() -> None:
        nonlocal changed, unresumable, undecided
        for job in waiting:
            try:
                after = await change(job)
            except FailedPreconditionError as error:
                # Else somebody else was faster, and the job no longer matches.
                unresumable += error.reason == "NO_FURTHER_FIRE"
            except AbortedError:
                undecided += 1
            else:
                changed += after.revision > job.revision

    # Not a TaskGroup: a lost database must come out as what it is, not inside of a group.
    workers = [asyncio.create_task(work()) for _ in range(min(CONCURRENCY, len(jobs)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
    return changed, unresumable, undecided


def _filter(project_id: str, labels: Mapping[str, str], state: JobState) -> JobFilter:
    if not project_id and not labels:
        raise InvalidArgumentError.of("project_id", "REQUIRED", "at least one of project_id and labels is required")
    return JobFilter(project_id=project_id, labels=labels, states=frozenset({state}))
