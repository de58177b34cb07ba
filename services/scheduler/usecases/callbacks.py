"""Writes the callbacks that the ends of executions call for; carrying them out is what the dispatch path does anyway.

The end itself is the outbox: it stands in phase SETTLING until its callbacks are stored, so a process that dies in
between leaves a mark by which another one writes them. Their ids are made of what they tell of, so writing them twice
changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from libs.common.clock import Clock
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.callback import execution_ended, failing_change, is_told, job_failed
from services.scheduler.domain.job import Job
from services.scheduler.usecases.org_settings import OrgSettingsReader
from services.scheduler.usecases.ports.due_nudge import DueNudge
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.execution_writes import FinishWrite
from services.scheduler.usecases.ports.job_store import JobStore


@dataclass(frozen=True, slots=True)
class WriteCallbacks:
    """Serves the settling of ended executions."""

    jobs: JobStore
    executions: ExecutionStore
    orgs: OrgSettingsReader
    nudge: DueNudge
    clock: Clock

    async def executions_ended(self, ends: Sequence[tuple[FinishWrite, Job]]) -> None:
        """Store the callbacks of those ends whose jobs want to tell of them; in one write, whatever their number."""
        told = {write.execution_id: job for write, job in ends if is_told(job.definition.callback, write.state)}
        if not told:
            return
        now = truncate_to_millis(self.clock.now())
        executions = await self.executions.load(told)
        callbacks = [execution_ended(execution, told[e_id], now) for e_id, execution in executions.items()]
        if callbacks:
            await self.executions.insert_new(callbacks)
            self.nudge.notify(now)

    async def jobs_failed(self, failures: Mapping[str, Collection[str]]) -> None:
        """Store the callbacks about jobs that failed by one of these executions, given by job.

        Whether a job did, its history says; so it does not matter who stopped it, and who has resumed it since.
        """
        if not failures:
            return
        now = truncate_to_millis(self.clock.now())
        for job in (await self.jobs.load(failures)).values():
            url = (await self.orgs.read(job.org_id)).job_failed_callback_url
            found = failing_change(job, failures[job.job_id]) if url else None
            if found is None:
                continue
            change, execution_id = found
            execution = (await self.executions.load([execution_id])).get(execution_id)
            if execution is not None:
                await self.executions.insert_new([job_failed(job, execution, change, url, now)])
                self.nudge.notify(now)
