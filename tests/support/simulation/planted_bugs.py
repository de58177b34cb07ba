"""Bugs that were put into the protocol on purpose, to see whether the simulation finds them.

Each replaces one function of production while it is in place; the code itself knows nothing of them. They are the
mistakes that this design is most easily made with, or would be easily changed into.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast
from unittest.mock import patch

from services.executor.adapters import scheduler_clock
from services.executor.usecases import intake, lease_keeper
from services.scheduler.domain import outcome
from services.scheduler.domain.begin import BeginDecision, Grant, decide_begin
from services.scheduler.domain.execution import Execution, ExecutionState
from services.scheduler.domain.job import Job, OnUnknownOutcome
from services.scheduler.testing import memory_lease_writes
from services.scheduler.testing.memory_lease_writes import MemoryLeaseWrites
from services.scheduler.usecases import acquire_due, begin_attempts, change_job_state, report_attempts, settle
from services.scheduler.usecases.ports.execution_writes import FinishWrite, GrantWrite, Lease, WaitWrite
from services.scheduler.usecases.ports.job_store import CursorMove

PlantedBug = contextlib.AbstractContextManager[Any]
PLANTED: dict[str, Callable[[], PlantedBug]] = {}
"""All planted bugs by name."""


def planted(make: Callable[[], Iterator[None]]) -> Callable[[], PlantedBug]:
    """Keep a planted bug by its name."""
    PLANTED[make.__name__] = contextlib.contextmanager(make)
    return PLANTED[make.__name__]


@planted
def advance_before_insert() -> Iterator[None]:
    """The tick moves the cursors first, and inserts the executions of the fires that they passed afterwards."""
    original = acquire_due.AcquireDue.run_once

    async def run_once(self: Any, *arguments: Any) -> Any:
        late: list[Any] = []

        class Jobs:
            async def advance(self, moves: Sequence[CursorMove]) -> None:
                await jobs.advance(moves)
                for executions in late:
                    await store.insert_new(executions)

            def __getattr__(self, name: str) -> Any:
                return getattr(jobs, name)

        class Executions:
            async def insert_new(self, executions: Sequence[Execution]) -> None:
                late.append(executions)

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

        jobs, store = self.jobs, self.executions
        return await original(replace(self, jobs=Jobs(), executions=Executions()), *arguments)

    with patch.object(acquire_due.AcquireDue, "run_once", run_once):
        yield


@planted
def report_without_token_check() -> Iterator[None]:
    """A report counts for an execution that runs, whoever holds its lease by now."""
    original_holds = report_attempts._holds_lease
    original_finish = MemoryLeaseWrites.finish

    def holds_lease(execution: Execution, report: Any) -> bool:
        return execution.state is ExecutionState.RUNNING or original_holds(execution, report)

    async def finish(self: MemoryLeaseWrites, writes: Sequence[FinishWrite]) -> frozenset[str]:
        present = {key: record.execution.fencing_token for key, record in self._records.items()}
        blind = [replace(write, fencing_token=present[write.execution_id]) for write in writes]
        applied = await original_finish(self, blind)
        for write in writes:
            record = self._records[write.execution_id]
            if write.is_report and write.execution_id in applied:
                record.execution = replace(record.execution, reported_token=write.fencing_token)
        return applied

    with patch.object(report_attempts, "_holds_lease", holds_lease), patch.object(MemoryLeaseWrites, "finish", finish):
        yield


@planted
def grant_without_state_check() -> Iterator[None]:
    """The write of a grant asks for nothing but the fencing token: an execution that ended meanwhile runs again."""

    def may_be_granted(stored: Execution, grant: GrantWrite, _lease: Lease) -> bool:
        return stored.fencing_token == grant.execution.fencing_token

    with patch.object(memory_lease_writes, "_may_be_granted", may_be_granted):
        yield


@planted
def grant_without_token_check() -> Iterator[None]:
    """The write of a grant asks for the state and not for the token: who read first takes what another one lost."""
    original = memory_lease_writes._may_be_granted

    def may_be_granted(stored: Execution, grant: GrantWrite, lease: Lease) -> bool:
        seen = replace(grant.execution, fencing_token=stored.fencing_token)
        return original(stored, replace(grant, execution=seen), lease)

    with patch.object(memory_lease_writes, "_may_be_granted", may_be_granted):
        yield


@planted
def acknowledge_before_begin() -> Iterator[None]:
    """The executor acknowledges what it read, and forgets what the scheduler did not answer in time.

    The poll path would mend it, so that path is blind here for what was delivered: it finds lost leases only.
    """
    original = intake.Intake.begin
    found = begin_attempts.BeginAttempts.poll_overdue

    async def begin(self: Any, question: Any) -> int:
        try:
            return await original(self, question)
        finally:
            self._acknowledger.add((question.entries or {}).values())

    class OnlyLeased:
        def __init__(self, store: Any) -> None:
            self._store = store

        async def find_overdue(self, *arguments: Any, **named: Any) -> Sequence[Execution]:
            overdue = await self._store.find_overdue(*arguments, **named)
            return [execution for execution in overdue if execution.state is ExecutionState.RUNNING]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

    async def poll_overdue(self: Any, *arguments: Any) -> Any:
        return await found(replace(self, executions=OnlyLeased(self.executions)), *arguments)

    with (
        patch.object(intake.Intake, "begin", begin),
        patch.object(begin_attempts.BeginAttempts, "poll_overdue", poll_overdue),
    ):
        yield


@planted
def retry_is_not_counted() -> Iterator[None]:
    """Each failed attempt counts as the first one."""
    original = outcome.decide_outcome

    def decide_outcome(*arguments: Any, attempt_number: int, **named: Any) -> Any:
        return original(*arguments, attempt_number=1, **named)

    with patch.object(report_attempts, "decide_outcome", decide_outcome):
        yield


@planted
def overlap_slot_is_released_before_the_end() -> Iterator[None]:
    """An execution that waits for its retry has given its overlap slot back."""
    original = MemoryLeaseWrites.wait

    async def wait(self: MemoryLeaseWrites, writes: Sequence[WaitWrite]) -> frozenset[str]:
        applied = await original(self, writes)
        for execution_id in applied:
            self._records[execution_id].overlap_slot = ""
        return applied

    with patch.object(MemoryLeaseWrites, "wait", wait):
        yield


@planted
def lease_counts_from_the_answer() -> Iterator[None]:
    """The executor counts its leases from when it heard of them, not from when it asked."""
    original_take, original_renew = intake.Intake._take, lease_keeper.LeaseKeeper._renew

    def take(self: Any, batch: Any, question: Any) -> int:
        return original_take(self, batch, replace(question, asked=self._clock.monotonic()))

    async def renew(self: Any, old: list[Any]) -> None:
        before = {id(held): held.expires for held in old}
        await original_renew(self, old)
        for held in old:
            if held.expires != before[id(held)]:
                held.expires = self._clock.monotonic() + self._lease_seconds

    with patch.object(intake.Intake, "_take", take), patch.object(lease_keeper.LeaseKeeper, "_renew", renew):
        yield


@planted
def expired_leases_are_not_asked_for() -> Iterator[None]:
    """Any RUNNING execution that somebody asks for is granted anew, whether or not its lease ran out."""

    def decide(execution: Execution, job: Job | None, now: datetime) -> BeginDecision:
        decision = decide_begin(execution, job, now)
        running = execution.state is ExecutionState.RUNNING
        if running and job and job.definition.on_unknown_outcome is OnUnknownOutcome.RETRY:
            return Grant(lost_lease=True)
        return decision

    original = memory_lease_writes._may_be_granted

    def may_be_granted(stored: Execution, grant: GrantWrite, lease: Lease) -> bool:
        return original(stored, grant, replace(lease, begin_time=lease.begin_time + timedelta(days=1)))

    with (
        patch.object(begin_attempts, "decide_begin", decide),
        patch.object(memory_lease_writes, "_may_be_granted", may_be_granted),
    ):
        yield


@planted
def begin_believes_what_it_remembers_of_jobs() -> Iterator[None]:
    """A begin asks the database only for jobs that its replica does not know, and misses what others did to them."""

    class Jobs:
        def __init__(self, store: Any) -> None:
            self._store = store

        async def load(self, job_ids: Collection[str]) -> Mapping[str, Job]:
            known = self._store.recall(job_ids)
            unknown = set(job_ids) - known.keys()
            return {**known, **(await self._store.load(unknown) if unknown else {})}

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

    original = begin_attempts.BeginAttempts.begin

    async def begin(self: Any, *arguments: Any) -> Any:
        return await original(replace(self, jobs=Jobs(self.jobs)), *arguments)

    with patch.object(begin_attempts.BeginAttempts, "begin", begin):
        yield


@planted
def repeated_begin_gets_another_token() -> Iterator[None]:
    """A begin that is repeated because its answer was lost is granted once more, under a new token."""

    def is_repetition(_execution: Execution, _request_id: str) -> bool:
        return False

    original = memory_lease_writes._may_be_granted

    def may_be_granted(stored: Execution, grant: GrantWrite, lease: Lease) -> bool:
        return stored.begin_request_id == lease.request_id or original(stored, grant, lease)

    def decide(execution: Execution, job: Job | None, now: datetime) -> BeginDecision:
        decision = decide_begin(execution, job, now)
        return Grant() if execution.state is ExecutionState.RUNNING and job is not None else decision

    with (
        patch.object(begin_attempts, "_is_repetition", is_repetition),
        patch.object(begin_attempts, "decide_begin", decide),
        patch.object(memory_lease_writes, "_may_be_granted", may_be_granted),
    ):
        yield


@planted
def repeated_begin_believes_an_old_memory() -> Iterator[None]:
    """A begin that is repeated is told the token that follows on what its replica remembers, not the one of its grant.

    Not an invention: it was so while the simulated replicas shared one memory, which was as new as the database.
    """

    def is_held_by(stored: Execution, request_id: str, _token: int) -> bool:
        return stored.state is ExecutionState.RUNNING and stored.begin_request_id == request_id

    with patch.object(memory_lease_writes, "_is_held_by", is_held_by):
        yield


@planted
def lost_lease_is_granted_anew_under_fail() -> Iterator[None]:
    """A lease that ran out is always granted anew, also where the job says that nothing may be sent twice."""

    def decide(execution: Execution, job: Job | None, now: datetime) -> BeginDecision:
        if job is not None:
            job = replace(job, definition=replace(job.definition, on_unknown_outcome=OnUnknownOutcome.RETRY))
        return decide_begin(execution, job, now)

    with patch.object(begin_attempts, "decide_begin", decide):
        yield


@planted
def renewed_lease_is_ended_as_lost() -> Iterator[None]:
    """A poll ends what it saw under a lost lease, though the holder came back and renewed it meanwhile.

    Not an invention: the simulation found it, and the check of the expiry at the write was the answer.
    """

    def may_end(stored: Execution, write: FinishWrite) -> bool:
        return (stored.state, stored.fencing_token) == (write.expected, write.fencing_token)

    with patch.object(memory_lease_writes, "_may_end", may_end):
        yield


@planted
def pause_forgets_what_fired() -> Iterator[None]:
    """A pause, an update or a deletion moves on without recording the fires that no tick has seen yet."""

    async def settle_cursor(*_: Any, **__: Any) -> None: ...

    with patch.object(change_job_state, "settle_cursor", settle_cursor):
        yield


@planted
def nobody_settles_what_a_dead_process_left() -> Iterator[None]:
    """The sweep does nothing: an end that was written and not settled stays so."""

    async def run_once(_: Any) -> int:
        return 0

    with patch.object(settle.SweepUnsettled, "run_once", run_once):
        yield


@planted
def clock_offset_is_ignored() -> Iterator[None]:
    """The executor tells due times by its own clock, whatever the scheduler's answers say of it."""

    def now(self: Any) -> datetime:
        return cast("datetime", self._clock.now())

    with patch.object(scheduler_clock.EstimatedClock, "now", now):
        yield
