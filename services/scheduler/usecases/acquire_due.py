"""The tick: turns what comes due into executions, and hands their ids to a dispatcher.

Insert first, advance second. Whoever dies in between repeats the tick: the inserts find their ids taken and change
nothing, the cursors move then. Two ticks over one job at once are the same case, so partition leases only save work.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.catch_up_pace import CatchUpPace
from services.scheduler.domain.execution import Execution, Phase
from services.scheduler.domain.job import JobState
from services.scheduler.domain.planning import MISFIRE_GRACE, UNUSABLE, FirePlan, PlannedFire, plan_fires
from services.scheduler.usecases.audit import stop_event
from services.scheduler.usecases.materialize import held_back, materialize
from services.scheduler.usecases.org_turns import Look, OrgTurns
from services.scheduler.usecases.ports.due_nudge import DueNudge
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.job_store import CursorMove, DueJob, JobStore

POLL_GRACE = timedelta(seconds=2)
"""How long after its time a delivered execution may stay without a beginning before the poll path takes it."""

LEAST_NOTICE = timedelta(milliseconds=750)
"""How long before its time a fire must be noticed, to be on its stream when the lead begins."""

PACE = timedelta(milliseconds=500)
"""Between the looks of one dispatcher, so that a look finds many fires at a steady load; well within what the horizon
is ahead of the least notice, so that no fire is late for it. What other replicas were told of is noticed by then."""

MAX_STOP_NOTE = 500
"""Characters of the reason why a job was stopped that are kept with it."""


@dataclass(frozen=True, slots=True)
class DueBatch:
    """Executions to put on the stream, and whether more is due already."""

    executions: Sequence[Execution]
    more: bool


class DueProbe(Protocol):
    """Tells without taking anything whether a pass is worth it."""

    async def anything(self, partitions: Collection[int], until: datetime) -> bool:
        """Return whether an ACTIVE job's fire is due, or an execution's wait ends, by `until`."""
        ...


class TickObserver(Protocol):
    """Hears of a tick's executions, to trace them."""

    def began(self, fires: Sequence[tuple[DueJob, Execution]]) -> tuple[Sequence[Execution], Sequence[Any]]:
        """Return new executions as they are to be stored, with their traces, and what `ended` wants back."""
        ...

    def ended(self, spans: Sequence[Any], waited: Sequence[Execution], began: datetime) -> None:
        """Hear that they are stored, and for which executions a wait ended; the tick began at an instant."""
        ...


@dataclass(slots=True)
class AcquireDue:
    """Serves the dispatchers' acquire calls."""

    jobs: JobStore
    executions: ExecutionStore
    probe: DueProbe
    nudge: DueNudge
    clock: Clock
    retention: timedelta
    """How long a finished execution is kept; a skipped one is finished at once."""
    max_catch_up_per_second: float = 100.0
    """How many missed fires may run in a second."""
    observer: TickObserver | None = None
    """Traces executions; None where nobody collects traces."""
    _due_turns: OrgTurns = field(init=False)
    _waiting_turns: OrgTurns = field(init=False)
    _pace: CatchUpPace = field(init=False)
    _last_looks: dict[int, tuple[datetime, int]] = field(default_factory=dict, init=False)
    """When each dispatcher, known by its first partition, was last given something, and the nudges' mark then."""

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        self._due_turns, self._waiting_turns = OrgTurns(self.clock), OrgTurns(self.clock)
        self._pace = CatchUpPace(self.max_catch_up_per_second)

    async def __call__(
        self, partitions: Collection[int], horizon: timedelta, limit: int, wait_seconds: float
    ) -> DueBatch:
        """Return what comes due within the horizon; while there is nothing, look again at a nudge and now and then."""
        await self._keep_pace(partitions, min(PACE, (horizon - LEAST_NOTICE) / 2))
        # A longer one would notice what comes into the horizon meanwhile too late to deliver it ahead of its time.
        interval = min(PACE, horizon - LEAST_NOTICE).total_seconds()
        ends = self.clock.monotonic() + wait_seconds
        looked, mark = self.clock.now(), self.nudge.mark()
        batch = await self.run_once(partitions, horizon, limit)
        while not batch.executions and not batch.more:
            left = ends - self.clock.monotonic()
            if min(left, interval) <= 0:
                return batch
            # What was announced since the mark may have come too late for the look just taken.
            nudged = await self.nudge.wait(self.clock.now() + horizon, min(left, interval), since=mark)
            if not nudged and left <= interval:
                # The call ends here. The next one follows at once, and its look shows the same.
                return batch
            looked, mark = self.clock.now(), self.nudge.mark()
            if nudged or await self.probe.anything(partitions, looked + horizon):
                batch = await self.run_once(partitions, horizon, limit)
        if not batch.more:
            self._last_looks[min(partitions, default=0)] = looked, mark
        return batch

    async def _keep_pace(self, partitions: Collection[int], pace: timedelta) -> None:
        """Wait until the last look that found something is a while ago, or something is near that it did not show."""
        last = self._last_looks.pop(min(partitions, default=0), None)
        if last is None:
            return
        looked, mark = last
        now = self.clock.now()
        left = looked + pace - now
        if left > timedelta():
            await self.nudge.wait(now + pace + LEAST_NOTICE, left.total_seconds(), since=mark)

    async def run_once(self, partitions: Collection[int], horizon: timedelta, limit: int) -> DueBatch:
        """Materialize fires, advance their jobs, and take over ended waits; one pass, bounded by `limit`."""
        # In whole milliseconds, so that what this replica remembers of its executions equals what is stored.
        now = truncate_to_millis(self.clock.now())
        until = now + horizon
        # The rest is kept for ended waits, so that no flood of fires holds up retries.
        due = await self._find_due(partitions, now, until, max(limit - limit // 4, 1))
        plans = await self._plan(due.found, now, until, limit)
        fires = [(job, self._execution(job, fire, now)) for job, plan in plans for fire in plan.fires]
        executions, spans = self._traced(fires)
        if executions:
            await self.executions.insert_new(executions)
            # If we die here, the executions exist and the cursors still point at their fires: the next tick inserts
            # nothing, delivers again, and moves the cursors.
            crash_point("scheduler.materialized")
        if plans:
            await self.jobs.advance([_move(job, plan) for job, plan in plans])
            # If we die here, no dispatcher knows of the executions: the poll path finds them overdue.
            crash_point("scheduler.advanced")
        ready = [execution for execution in executions if execution.phase is Phase.DISPATCHED]
        waited = await self._take_waiting(partitions, until, max(limit - len(ready), 1))
        more = due.full or waited.full or len(plans) < len(due.found) or any(plan.more for _, plan in plans)
        if self.observer is not None:
            self.observer.ended(spans, waited.found, now)
        return DueBatch([*ready, *waited.found], more)

    async def _find_due(self, partitions: Collection[int], now: datetime, until: datetime, limit: int) -> Look[DueJob]:
        """Find due jobs; in front of a backlog of missed fires those that are on time."""

        async def find(most: int, without_orgs: Collection[str]) -> Sequence[DueJob]:
            return await self.jobs.find_due(partitions, until, most, without_orgs=without_orgs)

        due = await self._due_turns.look(find, limit)
        if not due.full or not due.found or now - due.found[0].cursor.next_fire_time <= MISFIRE_GRACE:
            return due
        on_time = await self.jobs.find_due(partitions, until, limit, since=now - MISFIRE_GRACE)
        known = {job.cursor.job_id for job in on_time}
        return Look([*on_time, *(job for job in due.found if job.cursor.job_id not in known)], full=True)

    async def _take_waiting(self, partitions: Collection[int], until: datetime, limit: int) -> Look[Execution]:
        async def take(most: int, without_orgs: Collection[str]) -> Sequence[Execution]:
            return await self.executions.take_waiting(partitions, until, most, without_orgs=without_orgs)

        return await self._waiting_turns.look(take, limit, takes=True)

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
            except UNUSABLE as error:
                # Left ACTIVE, it would fail every tick for all.
                await self._stop_unusable(job.cursor.job_id, str(error)[:MAX_STOP_NOTE], now)
                continue
            plans.append((job, plan))
            decided += len(plan.fires)
        return plans

    def _traced(self, fires: Sequence[tuple[DueJob, Execution]]) -> tuple[Sequence[Execution], Sequence[Any]]:
        if self.observer is None:
            return [execution for _, execution in fires], ()
        return self.observer.began(fires)

    async def _stop_unusable(self, job_id: str, note: str, now: datetime) -> None:
        reason = "SCHEDULE_UNUSABLE"
        job = (await self.jobs.load([job_id])).get(job_id)
        event = stop_event(job, JobState.FAILED, reason, note, now) if job else None
        await self.jobs.stop(job_id, JobState.FAILED, reason, note, now, audit=event)

    def _execution(self, job: DueJob, fire: PlannedFire, now: datetime) -> Execution:
        # A late fire counts its grace from now: the dispatcher has only just got it.
        wake_time = max(fire.due_time, now) + POLL_GRACE
        execution = materialize(job, fire, now, phase=Phase.DISPATCHED, wake_time=wake_time, retention=self.retention)
        if fire.skip_reason or now - fire.due_time <= MISFIRE_GRACE:
            return execution
        slot = self._pace.slot(job.org_id, now)
        return held_back(execution, slot) if slot > now else execution


def _move(job: DueJob, plan: FirePlan) -> CursorMove:
    return CursorMove(
        job_id=job.cursor.job_id,
        schedule_revision=job.schedule_revision,
        expected=job.cursor.next_fire_time,
        next_fire_time=plan.next_fire_time,
        next_due_time=plan.next_due_time,
    )
