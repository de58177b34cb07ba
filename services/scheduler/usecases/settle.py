"""Does for the job what the end of its executions means: completion, failures in a row, the next queued execution.

The execution's end is written first; this comes second and may be repeated: each step is idempotent or counts by
execution id. Failed ends carry the phase SETTLING until it is done, so that a process that dies in between leaves a
mark that the settler finds; for successes the sweep over jobs without a further fire is the net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from services.scheduler.domain.callback import FAILURES_REASON, failing_change
from services.scheduler.domain.execution import FAILURES, Execution, ExecutionState, job_id_of
from services.scheduler.domain.job import Job, JobState, OverlapPolicy, partition_of
from services.scheduler.domain.outcome import STOP_REASON
from services.scheduler.usecases.audit import stop_event
from services.scheduler.usecases.callbacks import WriteCallbacks
from services.scheduler.usecases.ports.due_nudge import DueNudge
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.execution_writes import FinishWrite
from services.scheduler.usecases.ports.job_store import JobStore

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
    callbacks: WriteCallbacks

    async def __call__(self, finishes: Sequence[FinishWrite], jobs: Mapping[str, Job]) -> None:
        """Settle written ends; `jobs` are the jobs as read before the write."""
        if not finishes:
            return
        succeeded = {job_id_of(write.execution_id) for write in finishes if write.state is ExecutionState.SUCCEEDED}
        recovered = {job_id for job_id in succeeded if job_id in jobs and jobs[job_id].consecutive_failures}
        if recovered:
            await self.jobs.reset_failures(recovered)
        known = [(write, jobs[job_id]) for write in finishes if (job_id := job_id_of(write.execution_id)) in jobs]
        stopping = {job.job_id: (write, job) for write, job in known if write.reason == STOP_REASON}
        for write, job in stopping.values():
            await self._stop(job, JobState.PAUSED, STOP_REASON, "the target asked to stop", write.end_time)
        await self._settle_failures(
            [(write, job) for write, job in known if write.state in FAILURES and write.reason != STOP_REASON]
        )
        await self.callbacks.executions_ended(known)
        await self._complete({job_id_of(write.execution_id) for write in finishes}, jobs)
        await self._wake_queued(finishes, jobs)
        crash_point("scheduler.settling")
        unsettled = [write.execution_id for write in finishes if write.settle]
        if unsettled:
            await self.executions.settled(unsettled)

    async def _settle_failures(self, failures: Sequence[tuple[FinishWrite, Job]]) -> None:
        """Count failures, many in one write, and stop the jobs that have had too many of them in a row."""
        if not failures:
            return
        by_job: dict[str, list[str]] = {}
        for write, job in failures:
            by_job.setdefault(job.job_id, []).append(write.execution_id)
        in_a_row = await self.jobs.count_failures(by_job)
        latest = {job.job_id: (write, job) for write, job in failures}
        failed = {job.job_id for _, job in failures if failing_change(job, by_job[job.job_id])}
        for write, job in latest.values():
            limit = job.definition.max_consecutive_failures
            if in_a_row.get(job.job_id, 0) < limit:
                continue
            # A success whose reset was lost with its process must not end a job: the executions decide.
            states = await self.executions.latest_states(job.job_id, limit)
            if len(states) >= limit and all(state in FAILURES for state in states):
                note = f"{limit} failed executions in a row, the last one {write.execution_id}"
                await self._stop(job, JobState.FAILED, FAILURES_REASON, note, write.end_time)
                failed.add(job.job_id)
        # If we die here, the failures are still SETTLING; the sweep finds by its history that the job failed by them.
        await self.callbacks.jobs_failed({job_id: by_job[job_id] for job_id in failed})

    async def _stop(self, job: Job, state: JobState, reason: str, note: str, ended: datetime) -> None:
        """Stop a job for an execution that ended, unless somebody resumed it since: then it was stopped before."""
        now = self.clock.now()
        event = stop_event(job, state, reason, note, now)
        await self.jobs.stop(job.job_id, state, reason, note, now, ended=ended, audit=event)

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


@dataclass(slots=True)
class SweepUnsettled:
    """Finds what a process that died left unsettled; runs now and then on every replica."""

    jobs: JobStore
    executions: ExecutionStore
    settle: SettleFinished
    clock: Clock
    batch: int = 500
    _place: tuple[int, int] = field(default=(0, 0), init=False)
    """Where the next sweep for orphans goes on: the partition, and how many of it were looked at already.

    Most jobs without a further fire are no orphans but wait for their last execution, and must not hide the others.
    """

    async def run_once(self) -> int:
        """Settle one batch of each kind; returns how many records it looked at."""
        now = self.clock.now()
        executions = await self.executions.find_unsettled(now, self.batch)
        jobs = await self.jobs.load({execution.job_id for execution in executions})
        await self.settle([settled_write(execution, now) for execution in executions], jobs)
        partition, skip = self._place
        orphans = await self.jobs.find_orphaned(now - ORPHAN_AGE, self.batch, partition=partition, skip=skip)
        self._place = self._next_place(orphans)
        if orphans:
            await self.jobs.complete(set(orphans) - await self.executions.find_live_jobs(orphans), now)
        return len(executions) + len(orphans)

    def _next_place(self, orphans: Sequence[str]) -> tuple[int, int]:
        if len(orphans) < self.batch:
            return 0, 0
        partition, skip = self._place
        reached = partition_of(orphans[-1])
        return (partition, skip + self.batch) if reached == partition else (reached, 0)
