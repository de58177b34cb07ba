"""The scheduler's use cases over stores in memory and a clock that stands still: what a test needs to break them.

Every store operation passes two checkpoints. A test can have something happen at one of them, once, such as another
replica's whole call (`at`) or the death of the process (`die_at`); both fail the test's end if they never came to pass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from libs.common.testing.fake_clock import FakeClock
from services.scheduler.domain.execution import Execution, ExecutionState, StoredResponse
from services.scheduler.domain.job import Job, JobState
from services.scheduler.domain.org import OrgSettings
from services.scheduler.domain.outcome import AttemptReport, Result
from services.scheduler.testing.fake_due_nudge import FakeDueNudge
from services.scheduler.testing.memory_due_probe import MemoryDueProbe
from services.scheduler.testing.memory_execution_store import MemoryExecutionStore
from services.scheduler.testing.memory_job_store import MemoryJobStore
from services.scheduler.testing.open_secrets import OpenSecrets
from services.scheduler.usecases.acquire_due import AcquireDue, DueBatch
from services.scheduler.usecases.audit import JobAudit, ShownField
from services.scheduler.usecases.begin_attempts import BeginAttempts, BeginBatch, GrantedAttempt
from services.scheduler.usecases.callbacks import WriteCallbacks
from services.scheduler.usecases.change_job_state import ChangeJobState
from services.scheduler.usecases.extend_leases import ExtendLeases
from services.scheduler.usecases.report_attempts import ReportAttempts
from services.scheduler.usecases.requested_execution import RequestExecution
from services.scheduler.usecases.settle import SettleFinished, SweepUnsettled
from tests.support.scheduler_values import CALLER, NOW, RETENTION, SECOND, a_definition, a_job

ALL = range(256)
LEASE = 15 * SECOND
HORIZON = 2 * SECOND
Happening = Callable[[], Awaitable[object]]


class Death(Exception):  # noqa: N818 - an event of the test, not an error
    """The process dies here."""


class NoFields:
    """Implements `JobFields` for tests that do not look at the audit."""

    def outline(self, job: Job) -> Mapping[str, ShownField]:
        return {}

    def definition(self, job: Job) -> Mapping[str, ShownField]:
        return {}

    def state(self, job: Job) -> Mapping[str, ShownField]:
        return {}


class AnswerCount:
    """Implements `AnswerQuota` for orgs that a test fills."""

    def __init__(self) -> None:
        self.full: set[str] = set()
        self.stored: list[tuple[str, int]] = []

    def is_full(self, org_id: str) -> bool:
        return org_id in self.full

    def add_answer(self, org_id: str, size: int, end_time: datetime) -> None:
        self.stored.append((org_id, size))


class Orgs:
    """Implements `OrgSettingsReader`: all orgs have the defaults, but for where they want to be told."""

    def __init__(self) -> None:
        self.callback_urls: dict[str, str] = {}

    async def read(self, org_id: str) -> OrgSettings:
        return OrgSettings(org_id, 10, 10, 10, job_failed_callback_url=self.callback_urls.get(org_id, ""))


class AmpleOrg:
    """Implements `OrgSettingsReader` and `OrgUsage` of an org that may have all it wants."""

    async def read(self, org_id: str) -> OrgSettings:
        return OrgSettings(org_id, 10_000, 10**9, 10_000)

    async def job_count(self, org_id: str, max_age_seconds: float) -> int:
        return 0

    def add_jobs(self, org_id: str, count: int) -> None:
        return

    async def stored_bytes(self, org_id: str) -> int:
        return 0


class World:
    """One scheduler; its replicas differ in nothing, so calls at once are calls of several replicas."""

    def __init__(self) -> None:
        self.clock = FakeClock(NOW)
        self.jobs = MemoryJobStore(self._checkpoint)
        self.executions = MemoryExecutionStore(RETENTION, self.clock, self._checkpoint)
        self.nudge = FakeDueNudge(self.clock)
        self.secrets = OpenSecrets()
        self.orgs = Orgs()
        callbacks = WriteCallbacks(self.jobs, self.executions, self.orgs, self.nudge, self.clock)
        settle = SettleFinished(self.jobs, self.executions, self.nudge, self.clock, callbacks)
        self.acquire = AcquireDue(
            self.jobs,
            self.executions,
            MemoryDueProbe(self.jobs, self.executions, self._checkpoint),
            self.nudge,
            self.clock,
            RETENTION,
        )
        self.begins = BeginAttempts(
            jobs=self.jobs,
            executions=self.executions,
            secrets=self.secrets,
            settle=settle,
            clock=self.clock,
            lease=LEASE,
        )
        self.extends = ExtendLeases(self.executions, self.clock, LEASE)
        self.answers = AnswerCount()
        self.reports = ReportAttempts(
            self.jobs, self.executions, settle, self.nudge, self.answers, self.clock, lambda: 0.0
        )
        self.sweeps = SweepUnsettled(self.jobs, self.executions, settle, self.clock)
        self.changes = ChangeJobState(
            self.jobs, self.executions, self.nudge, JobAudit(NoFields()), self.clock, RETENTION
        )
        self.requests = RequestExecution(self.jobs, self.executions, self.nudge, self.clock)
        self.on_checkpoint: Callable[[str], Awaitable[None]] | None = None
        self._happenings: dict[str, Happening] = {}
        self._requests = 0

    async def _checkpoint(self, name: str) -> None:
        if self.on_checkpoint is not None:
            await self.on_checkpoint(name)
        happening = self._happenings.pop(name, None)
        if happening is not None:
            await happening()

    def at(self, checkpoint: str, happening: Happening) -> None:
        """Have something happen the first time that a checkpoint is passed."""
        self._happenings[checkpoint] = happening

    def die_at(self, checkpoint: str) -> None:
        """Let the process die the first time that a checkpoint is passed."""

        async def die() -> None:
            raise Death(checkpoint)

        self.at(checkpoint, die)

    def check_happened(self) -> None:
        """Fail when something was to happen and did not: the test proves nothing then."""
        assert not self._happenings, f"never reached: {list(self._happenings)}"

    # What callers, dispatchers and executors do

    async def job(self, **changes: Any) -> Job:
        """Store a job; changes are those of its definition."""
        job = a_job(a_definition(**changes), created=self.clock.now())
        assert not await self.jobs.insert_new([job])
        return job

    async def tick(self, limit: int = 1000) -> DueBatch:
        return await self.acquire.run_once(ALL, HORIZON, limit)

    async def delivered(self) -> list[str]:
        """Tick, and return the ids of what is to be delivered."""
        return [execution.execution_id for execution in (await self.tick()).executions]

    async def begin(self, *execution_ids: str, executor: str = "x1", request: str = "") -> BeginBatch:
        self._requests += 1
        return await self.begins.begin(executor, request or f"request-{self._requests}", execution_ids)

    async def poll(self, limit: int = 100, executor: str = "x2", request: str = "") -> BeginBatch:
        self._requests += 1
        return await self.begins.poll_overdue(executor, request or f"request-{self._requests}", limit)

    async def begun(self, execution_id: str) -> GrantedAttempt:
        """Begin one execution, which must be granted."""
        batch = await self.begin(execution_id)
        assert not batch.refused
        return batch.granted[0]

    async def report(
        self, granted: GrantedAttempt, status: int = 200, result: Result = Result.ANSWERED, **changes: Any
    ) -> bool:
        """Report an attempt, and return whether that counted."""
        report = self.report_of(granted, status, result, **changes)
        return (report.execution_id, report.fencing_token) in await self.reports([report])

    def report_of(
        self, granted: GrantedAttempt, status: int = 200, result: Result = Result.ANSWERED, **changes: Any
    ) -> AttemptReport:
        return AttemptReport(
            granted.execution.execution_id,
            granted.fencing_token,
            result,
            self.clock.now(),
            start_time=self.clock.now(),
            response=StoredResponse(status) if result is Result.ANSWERED else None,
            **changes,
        )

    async def run(self, execution_id: str, status: int = 200) -> Execution:
        """Begin one execution and report its end."""
        assert await self.report(await self.begun(execution_id), status)
        return self.execution(execution_id)

    async def pause(self, job: Job) -> Job:
        return await self.changes.pause(CALLER, job.job_id)

    async def resume(self, job: Job) -> Job:
        return await self.changes.resume(CALLER, job.job_id)

    async def delete(self, job: Job) -> Job:
        return await self.changes.delete(CALLER, job.job_id)

    # What there is

    def stored(self, job: Job) -> Job:
        return self.jobs.jobs[job.job_id]

    def execution(self, execution_id: str) -> Execution:
        return self.executions.executions[execution_id]

    def state(self, execution_id: str) -> tuple[ExecutionState, str]:
        """Return state and reason of an execution."""
        execution = self.execution(execution_id)
        return execution.state, execution.state_reason

    def job_state(self, job: Job) -> JobState:
        return self.stored(job).state

    def fires(self, job: Job) -> dict[datetime, Execution]:
        """Return the scheduled executions of a job by fire time, earliest first."""
        found = [
            e for e in self.executions.executions.values() if e.job_id == job.job_id and "-m" not in e.execution_id
        ]
        return {execution.fire_time: execution for execution in sorted(found, key=lambda e: e.fire_time)}

    def reasons(self, job: Job) -> list[str]:
        """Return the states of a job's fires, or the reasons of skipped ones, earliest first."""
        return [execution.state_reason or execution.state.value for execution in self.fires(job).values()]

    async def advance(self, span: float | timedelta) -> None:
        await self.clock.advance(span)
