"""The tick: turns what comes due into executions, and hands their ids to a dispatcher.

Insert first, advance second. Whoever dies in between repeats the tick: the inserts find their ids taken and change
nothing, the cursors move then. Two ticks over one job at once are the same case, so partition leases only save work.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from services.scheduler.domain.execution import Cause, Execution, ExecutionState, Phase, scheduled_execution_id
from services.scheduler.domain.planning import FirePlan, PlannedFire, plan_fires
from services.scheduler.usecases.ports import CursorMove, DueJob, DueNudge, ExecutionStore, JobStore

POLL_GRACE = timedelta(seconds=2)
"""How long after its time a delivered execution may stay without a beginning before the poll path takes it."""


@dataclass(frozen=True, slots=True)
class DueBatch:
    """Executions to put on the stream, and whether more is due already."""

    executions: Sequence[Execution]
    more: bool


@dataclass(frozen=True, slots=True)
class AcquireDue:
    """Serves the dispatchers' acquire calls."""

    jobs: JobStore
    executions: ExecutionStore
    nudge: DueNudge
    clock: Clock
    retention: timedelta
    """How long a finished execution is kept; a skipped one is finished at once."""

    async def __call__(
        self, partitions: Collection[int], horizon: timedelta, limit: int, wait_seconds: float
    ) -> DueBatch:
        """Return what comes due within the horizon; when there is nothing, wait for a nudge and look once more."""
        batch = await self.run_once(partitions, horizon, limit)
        if batch.executions or batch.more or wait_seconds <= 0:
            return batch
        await self.nudge.wait(self.clock.now() + horizon, wait_seconds)
        return await self.run_once(partitions, horizon, limit)

    async def run_once(self, partitions: Collection[int], horizon: timedelta, limit: int) -> DueBatch:
        """Materialize fires, advance their jobs, and take over ended waits; one pass, bounded by `limit`."""
        now = self.clock.now()
        until = now + horizon
        due_jobs = await self.jobs.find_due(partitions, until, limit)
        plans = [(job, plan_fires(job.cursor, now, until)) for job in due_jobs]
        executions = [self._execution(job, fire, now) for job, plan in plans for fire in plan.fires]
        if executions:
            await self.executions.insert_new(executions)
        # If we die here, the executions exist and the cursors still point at their fires: the next tick inserts
        # nothing, delivers again, and moves the cursors.
        crash_point("scheduler.materialized")
        if plans:
            await self.jobs.advance([_move(job, plan) for job, plan in plans])
        crash_point("scheduler.advanced")
        waited = await self.executions.take_waiting(partitions, until, limit)
        ready = [execution for execution in executions if execution.state is ExecutionState.READY]
        more = len(due_jobs) >= limit or len(waited) >= limit or any(plan.more for _, plan in plans)
        return DueBatch([*ready, *waited], more)

    def _execution(self, job: DueJob, fire: PlannedFire, now: datetime) -> Execution:
        skipped = bool(fire.skip_reason)
        return Execution(
            execution_id=scheduled_execution_id(job.cursor.job_id, fire.fire_time),
            job_id=job.cursor.job_id,
            org_id=job.org_id,
            project_id=job.project_id,
            partition=job.partition,
            cause=Cause.SCHEDULE,
            fire_time=fire.fire_time,
            due_time=fire.due_time,
            create_time=now,
            job_revision=job.revision,
            schedule_revision=job.schedule_revision,
            exclusive=job.exclusive,
            state=ExecutionState.SKIPPED if skipped else ExecutionState.READY,
            state_reason=fire.skip_reason,
            phase=None if skipped else Phase.DISPATCHED,
            # A late fire counts its grace from now: the dispatcher has only just got it.
            wake_time=None if skipped else max(fire.due_time, now) + POLL_GRACE,
            available_time=fire.due_time,
            end_time=now if skipped else None,
            expire_time=now + self.retention if skipped else None,
            trace_parent=job.trace_parent,
        )


def _move(job: DueJob, plan: FirePlan) -> CursorMove:
    return CursorMove(
        job_id=job.cursor.job_id,
        schedule_revision=job.schedule_revision,
        expected=job.cursor.next_fire_time,
        next_fire_time=plan.next_fire_time,
        next_due_time=plan.next_due_time,
    )
