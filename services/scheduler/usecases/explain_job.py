"""Answers why a job did or did not run in a window: what is on record, and what the schedule named besides.

The two are merged by fire time, page by page: a page reads as many executions as it may show, and walks the schedule no
further than those reach, so that a window of any size costs a page's work at a time.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from libs.common.clock import Clock
from libs.common.errors import FieldViolation, InvalidArgumentError
from services.scheduler.domain.execution import Execution, scheduled_execution_id
from services.scheduler.domain.explanation import Explanation, explain_absence, explain_execution
from services.scheduler.domain.job import KEPT_STATE_CHANGES, Job
from services.scheduler.domain.planning import UNUSABLE
from services.scheduler.domain.schedule import next_fire
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.job_store import JobStore

MAX_WINDOW = timedelta(days=31)
DEFAULT_SPAN = timedelta(days=1)
DEFAULT_AHEAD = timedelta(hours=1)

_FIRST = datetime.min.replace(tzinfo=UTC)
"""What some clients send for an instant that was never set."""

PageKey = tuple[datetime, str]
"""Where a page ended: the fire time, and the execution's id or nothing."""


@dataclass(frozen=True, slots=True)
class Window:
    """The fire times asked for, both ends included."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, start: datetime | None, end: datetime | None, now: datetime) -> Window:
        """Return a window with its defaults filled in.

        Raises:
            InvalidArgumentError: it ends before it starts, or is too long.
        """
        end = end or now + DEFAULT_AHEAD
        # An end in the future asks for what comes as well, not instead.
        start = start or max(min(end, now), _FIRST + DEFAULT_SPAN) - DEFAULT_SPAN
        if end < start:
            raise InvalidArgumentError([FieldViolation("end_time", "END_BEFORE_START", "lies before start_time")])
        if end - start > MAX_WINDOW:
            raise InvalidArgumentError(
                [FieldViolation("end_time", "OUT_OF_RANGE", f"lies more than {MAX_WINDOW.days} days after start_time")]
            )
        return cls(start, end)


@dataclass(frozen=True, slots=True)
class ExplainedPage:
    """Explanations, oldest first, and where the next page continues."""

    explanations: list[Explanation]
    next_key: PageKey | None


@dataclass(frozen=True, slots=True)
class ExplainJob:
    """Serves ExplainJob."""

    jobs: JobStore
    executions: ExecutionStore
    clock: Clock
    retention: timedelta
    """How long records are kept: what fired before that may have run without leaving one."""

    async def __call__(
        self, caller: Caller, job_id: str, window: Window, *, after: PageKey | None, limit: int
    ) -> ExplainedPage:
        """Explain a page of a job's fires.

        Raises:
            NotFoundError: no such job within the caller's scope.
        """
        job = await self.jobs.get(caller.scope, job_id)
        now = self.clock.now()
        records = await self.executions.find_window(job_id, window.start, window.end, after=after, limit=limit + 1)
        walk_end = records[-1].fire_time if len(records) > limit else window.end
        known = {execution.execution_id for execution in records}
        absent = (
            fire
            for fire in self._named(job, window.start, walk_end, now, after)
            if scheduled_execution_id(job_id, fire) not in known
        )
        recorded = ((execution.fire_time, execution.execution_id, execution) for execution in records)
        missing: Iterator[tuple[datetime, str, Execution | None]] = ((fire, "", None) for fire in absent)
        page = list(itertools.islice(heapq.merge(recorded, missing, key=lambda item: item[:2]), limit + 1))
        explanations = [
            explain_execution(execution, job, now)
            if execution is not None
            else explain_absence(fire, job, now, window.start)
            for fire, _, execution in page[:limit]
        ]
        return ExplainedPage(explanations, explanations[-1].key if len(page) > limit else None)

    def _named(
        self, job: Job, start: datetime, end: datetime, now: datetime, after: PageKey | None
    ) -> Iterator[datetime]:
        """Yield the fires of the present schedule in the window for which a record is to be expected."""
        before = max(start, _FIRST + timedelta.resolution) - timedelta.resolution
        begin = max(before, job.schedule_time or job.create_time, now - self.retention)
        if len(job.state_changes) == KEPT_STATE_CHANGES:
            # Of the time before, nobody remembers whether the job was active.
            begin = max(begin, job.state_changes[0].time)
        if after is not None:
            begin = max(begin, after[0])
        # Of a schedule that cannot be evaluated any more only the records tell.
        with suppress(*UNUSABLE):
            fire = next_fire(job.definition.schedule, begin)
            while fire is not None and fire <= end:
                yield fire
                fire = next_fire(job.definition.schedule, fire)
