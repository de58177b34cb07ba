"""Does for the job what the end of its executions means: completion, failures in a row, the next queued execution.

The execution's end is written first; this comes second and may be repeated: each step is idempotent or counts by
execution id. Failed ends carry the phase SETTLING until it is done, so that a process that dies in between leaves a
mark that the settler finds; for successes the sweep over jobs without a further fire is the net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from services.scheduler.domain.execution import FAILURES, Execution, ExecutionState, job_id_of
from services.scheduler.domain.job import Job, JobState, OverlapPolicy
from services.scheduler.usecases.audit import stop_event
from services.scheduler.usecases.ports import DueNudge, ExecutionStore, FinishWrite, JobStore

STOP_REASON = "TARGET_ASKED_TO_STOP"
OVERLAP_REASON = "OVERLAP"
ORPHAN_AGE = timedelta(minutes=1)
"""How long a job without a further fire stays untouched before the sweep asks whether anything of it still runs."""


@dataclass(frozen=True, slots=True)
class SettleFinished:
    """Settles the ends of executions."""

    jobs: JobStore
    executions: ExecutionStore
    nudge: DueNudge
    clock: Clock

    async def __call__(self, finishes: Sequence[FinishWrite], jobs: Mapping[str, Job]) -> None:
        """Settle written ends; `jobs` are the jobs as read before the write."""
        if not finishes:
            return
        succeeded = {job_id_of(write.execution_id) for write in finishes if write.state is ExecutionState.SUCCEEDED}
        recovered = {job_id for job_id in succeeded if job_id in jobs and jobs[job_id].consecutive_failures}
        if recovered:
            await self.jobs.reset_failures(recovered)
        for write in finishes:
            if write.state in FAILURES:
                await self._settle_failure(write, jobs.get(job_id_of(write.execution_id)))
        await self._complete({job_id_of(write.execution_id) for write in finishes}, jobs)
        await self._wake_queued(finishes, jobs)
        crash_point("scheduler.settling")
        unsettled = [write.execution_id for write in finishes if write.settle]
        if unsettled:
            await self.executions.settled(unsettled)

    async def _settle_failure(self, write: FinishWrite, job: Job | None) -> None:
        if job is None:
            return
        now = self.clock.now()
        if write.reason == STOP_REASON:
            await self._stop(job, JobState.PAUSED, STOP_REASON, "the target asked to stop", now)
            return
        in_a_row = await self.jobs.count_failure(job.job_id, write.execution_id)
        limit = job.definition.max_consecutive_failures
        if in_a_row < limit:
            return
        # A success whose reset was lost with its process must not end a job: the executions decide.
        latest = await self.executions.latest_states(job.job_id, limit)
        if len(latest) >= limit and all(state in FAILURES for state in latest):
            note = f"{limit} failed executions in a row, the last one {write.execution_id}"
            await self._stop(job, JobState.FAILED, "CONSECUTIVE_FAILURES", note, now)

    async def _stop(self, job: Job, state: JobState, reason: str, note: str, now: datetime) -> None:
        event = stop_event(job, state, reason, note, now)
        await self.jobs.stop(job.job_id, state, reason, note, now, audit=event)

    async def _complete(self, job_ids: set[str], jobs: Mapping[str, Job]) -> None:
        """Complete jobs that have no further fire and nothing running."""
        last = {
            job_id
            for job_id in job_ids
            if job_id in jobs and jobs[job_id].state is JobState.ACTIVE and jobs[job_id].next_fire_time is None
        }
        if last:
            await self.jobs.complete(last - await self.executions.find_live_jobs(last), self.clock.now())

    async def _wake_queued(self, finishes: Sequence[FinishWrite], jobs: Mapping[str, Job]) -> None:
        queueing = {
            job_id
            # One that ended because another one runs has freed nothing.
            for job_id in (job_id_of(write.execution_id) for write in finishes if write.reason != OVERLAP_REASON)
            if job_id in jobs and jobs[job_id].definition.overlap is OverlapPolicy.QUEUE_ONE
        }
        if queueing:
            now = self.clock.now()
            if await self.executions.wake_queued(queueing, now):
                self.nudge.notify(now)


def settled_write(execution: Execution, now: datetime) -> FinishWrite:
    """Return the write that ended an execution, as far as settling asks for it."""
    return FinishWrite(
        execution_id=execution.execution_id,
        fencing_token=execution.fencing_token,
        expected=execution.state,
        state=execution.state,
        reason=execution.state_reason,
        end_time=execution.end_time or now,
        settle=True,
    )


@dataclass(frozen=True, slots=True)
class SweepUnsettled:
    """Finds what a process that died left unsettled; runs now and then on every replica."""

    jobs: JobStore
    executions: ExecutionStore
    settle: SettleFinished
    clock: Clock
    batch: int = 500

    async def run_once(self) -> int:
        """Settle one batch of each kind; returns how many records it looked at."""
        now = self.clock.now()
        executions = await self.executions.find_unsettled(now, self.batch)
        jobs = await self.jobs.load({execution.job_id for execution in executions})
        await self.settle([settled_write(execution, now) for execution in executions], jobs)
        orphans = set(await self.jobs.find_orphaned(now - ORPHAN_AGE, self.batch))
        if orphans:
            await self.jobs.complete(orphans - await self.executions.find_live_jobs(orphans), now)
        return len(executions) + len(orphans)
