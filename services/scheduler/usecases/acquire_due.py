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
from libs.common.errors import PunctualError
from services.scheduler.domain.execution import Execution, ExecutionState, Phase
from services.scheduler.domain.job import JobState
from services.scheduler.domain.planning import FirePlan, PlannedFire, plan_fires
from services.scheduler.usecases.materialize import materialize
from services.scheduler.usecases.ports import CursorMove, DueJob, DueNudge, ExecutionStore, JobStore

POLL_GRACE = timedelta(seconds=2)
"""How long after its time a delivered execution may stay without a beginning before the poll path takes it."""

MAX_STOP_NOTE = 500
"""Characters of the reason why a job was stopped that are kept with it."""


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
        mark = self.nudge.mark()
        batch = await self.run_once(partitions, horizon, limit)
        if batch.executions or batch.more or wait_seconds <= 0:
            return batch
        # What was announced since the mark may have come too late for the look just taken.
        await self.nudge.wait(self.clock.now() + horizon, wait_seconds, since=mark)
        return await self.run_once(partitions, horizon, limit)

    async def run_once(self, partitions: Collection[int], horizon: timedelta, limit: int) -> DueBatch:
        """Materialize fires, advance their jobs, and take over ended waits; one pass, bounded by `limit`."""
        now = self.clock.now()
        until = now + horizon
        due_jobs = await self.jobs.find_due(partitions, until, limit)
        plans = await self._plan(due_jobs, now, until, limit)
        executions = [self._execution(job, fire, now) for job, plan in plans for fire in plan.fires]
        if executions:
            await self.executions.insert_new(executions)
        # If we die here, the executions exist and the cursors still point at their fires: the next tick inserts
        # nothing, delivers again, and moves the cursors.
        crash_point("scheduler.materialized")
        if plans:
            await self.jobs.advance([_move(job, plan) for job, plan in plans])
        crash_point("scheduler.advanced")
        ready = [execution for execution in executions if execution.state is ExecutionState.READY]
        # At least one, so that no flood of fires holds up retries for good.
        room = max(limit - len(ready), 1)
        waited = await self.executions.take_waiting(partitions, until, room)
        more = (
            len(due_jobs) >= limit
            or len(plans) < len(due_jobs)
            or len(waited) >= room
            or any(plan.more for _, plan in plans)
        )
        return DueBatch([*ready, *waited], more)

    async def _plan(
        self, due_jobs: Sequence[DueJob], now: datetime, until: datetime, limit: int
    ) -> list[tuple[DueJob, FirePlan]]:
        """Plan jobs, oldest first, until the decided fires fill the pass; the other jobs come with the next one."""
        plans: list[tuple[DueJob, FirePlan]] = []
        decided = 0
        for job in due_jobs:
            if decided >= limit:
                break
            try:
                plan = plan_fires(job.cursor, now, until)
            except (PunctualError, ValueError, OverflowError) as error:
                # Such as a zone that the time zone database dropped. Left ACTIVE, it would fail every tick for all.
                await self.jobs.stop(
                    job.cursor.job_id, JobState.FAILED, "SCHEDULE_UNUSABLE", str(error)[:MAX_STOP_NOTE], now
                )
                continue
            plans.append((job, plan))
            decided += len(plan.fires)
        return plans

    def _execution(self, job: DueJob, fire: PlannedFire, now: datetime) -> Execution:
        # A late fire counts its grace from now: the dispatcher has only just got it.
        wake_time = max(fire.due_time, now) + POLL_GRACE
        return materialize(job, fire, now, phase=Phase.DISPATCHED, wake_time=wake_time, retention=self.retention)


def _move(job: DueJob, plan: FirePlan) -> CursorMove:
    return CursorMove(
        job_id=job.cursor.job_id,
        schedule_revision=job.schedule_revision,
        expected=job.cursor.next_fire_time,
        next_fire_time=plan.next_fire_time,
        next_due_time=plan.next_due_time,
    )
