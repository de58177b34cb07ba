"""The executions, as the use cases need them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.scheduler.domain.execution import (
    Cause,
    Execution,
    ExecutionState,
)
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.execution_writes import FinishWrite, GrantResult, GrantWrite, Lease, WaitWrite


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """Which executions a list shows; what is empty or None does not restrict.

    A job's callbacks are no executions of it: they come only where no other cause is asked for.
    """

    job_id: str = ""
    project_id: str = ""
    states: frozenset[ExecutionState] = frozenset()
    causes: frozenset[Cause] = frozenset()
    fire_after: datetime | None = None
    fire_before: datetime | None = None
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Who stops an execution, and why."""

    reason: str
    actor: str
    note: str = ""


class ExecutionStore(Protocol):
    """The executions. One writer: the scheduler."""

    async def insert_new(self, executions: Sequence[Execution], *, audit: AuditEvent | None = None) -> None:
        """Store executions durably; one whose id exists stays as it is. An event goes with a single one."""
        ...

    async def get(self, scope: OrgScope, execution_id: str) -> Execution:
        """Return an execution.

        Raises:
            NotFoundError: no such execution within the scope.
        """
        ...

    async def find_page(
        self, scope: OrgScope, where: ExecutionFilter, *, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Return executions, latest fire first, that come after (fire time, id), without their answers' bytes."""
        ...

    async def find_window(
        self, job_id: str, start: datetime, end: datetime, *, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Return a job's executions with fire times in [start, end], earliest first, without their answers' bytes.

        Only those that come after (fire time, id).
        """
        ...

    async def load(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return the executions that exist, by id, of any org, without answers."""
        ...

    def recall(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return those of the executions that this replica remembers, as it inserted or granted them; without a read.

        They may stand otherwise by now, so what is built on them is written by compare-and-set.
        """
        ...

    async def confirm(self) -> None:
        """Return when all that was read of executions before is durable.

        A read may show a write that is under way still and comes to nothing when the primary dies. Whoever answers for
        one that an earlier copy of a call made, and writes nothing itself, waits for it first (promise P9).
        """
        ...

    async def load_with_answers(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return the executions that exist, by id, of any org, with their answers but not the answers' bytes."""
        ...

    async def take_waiting(
        self, partitions: Collection[int], until: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Hand over executions whose wait ends by `until`: their poll time moves to the grace after that end."""
        ...

    async def find_begun(self, request_id: str, now: datetime) -> Sequence[Execution]:
        """Return the executions that a request was granted, while their leases hold at `now`."""
        ...

    async def find_overdue(
        self, now: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Return executions that no delivery reached in time, and those whose lease ran out, oldest first."""
        ...

    async def find_ready(
        self, until: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Return all executions that may begin by `until`, delivered or not, oldest first."""
        ...

    async def postpone(self, executions: Sequence[Execution], wake_time: datetime) -> None:
        """Let nobody look at executions before an instant; one that was changed since it was read stays as it is."""
        ...

    async def grant(self, lease: Lease, grants: Sequence[GrantWrite]) -> GrantResult:
        """Take READY (or lost) executions to RUNNING under new leases, each by compare-and-set on its fencing token."""
        ...

    async def queue_behind(self, execution: Execution, job_id: str, recheck_time: datetime) -> bool:
        """Let an overlapping execution wait for the running one; False when another one waits already."""
        ...

    async def is_slot_taken(self, job_id: str) -> bool:
        """Whether an execution of the job holds its overlap slot."""
        ...

    async def wake_queued(self, job_ids: Collection[str], now: datetime) -> bool:
        """Let executions continue that wait for another of their job to end; whether there were any."""
        ...

    async def wake_waiting(self, org_id: str, host: str, wake_time: datetime) -> int:
        """Let executions of an org that wait for a host continue at an instant, a bounded number; returns how many."""
        ...

    async def finish(self, writes: Sequence[FinishWrite]) -> frozenset[str]:
        """End executions, each by compare-and-set on state and fencing token; returns the ids that stand so now.

        A repetition of an applied write is among them, a stale one is not, whatever else ended the execution.
        """
        ...

    async def wait(self, writes: Sequence[WaitWrite]) -> frozenset[str]:
        """Put executions back to READY, each by compare-and-set on its fencing token; returns as `finish` does."""
        ...

    async def extend(self, executor_id: str, leases: Mapping[str, int], expire_time: datetime) -> Mapping[str, str]:
        """Renew leases (id to token); returns those that still hold, with the reason of a wanted cancellation or ''."""
        ...

    async def settled(self, execution_ids: Collection[str]) -> None:
        """Note that what the end of these executions means for their jobs is done."""
        ...

    async def find_unsettled(self, now: datetime, limit: int) -> Sequence[Execution]:
        """Return final executions whose consequences may not be done, for a process died in between."""
        ...

    async def find_live_jobs(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the jobs have an execution that is not final."""
        ...

    async def withdraw(self, job_id: str, reason: str, now: datetime) -> None:
        """End the READY, never begun, scheduled executions of a job that stops firing: SKIPPED with the reason.

        Only what fired by `now`. What was materialized ahead of its fire stays: the job may be active again by then,
        and the cursor may stand behind it, so to remove it could lose a fire. The beginning decides it at its time.
        """
        ...

    async def cancel_ready(
        self, execution: Execution, cancellation: Cancellation, now: datetime, *, audit: AuditEvent | None = None
    ) -> bool:
        """End a READY execution as CANCELLED, to be settled; False when it is not READY under the token as read."""
        ...

    async def request_cancel(
        self, execution: Execution, cancellation: Cancellation, *, audit: AuditEvent | None = None
    ) -> bool:
        """Ask the executor of a RUNNING execution to stop; False when it is not RUNNING, or was asked before."""
        ...

    async def cancel_job(self, job_id: str, cancellation: Cancellation, now: datetime) -> None:
        """End all READY executions of a job that is deleted, and ask the executors of RUNNING ones to stop.

        What was never tried ends SKIPPED, what was tried CANCELLED; what was materialized ahead of its fire goes away.
        """
        ...

    async def last_success_times(self, job_ids: Collection[str]) -> Mapping[str, datetime]:
        """Return the fire time of each job's latest SUCCEEDED execution; jobs without one are absent."""
        ...

    async def latest_states(self, job_id: str, limit: int) -> Sequence[ExecutionState]:
        """Return the states of the job's latest final, not skipped or cancelled executions, latest first."""
        ...
