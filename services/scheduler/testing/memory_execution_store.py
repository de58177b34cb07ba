"""The executions in memory: each method is one atomic step, judged as the compare-and-set of the real store is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.errors import NotFoundError
from services.scheduler.domain.execution import Cause, Execution, ExecutionState, Phase
from services.scheduler.domain.target_host import TARGET_WAIT_REASONS
from services.scheduler.testing.checkpoint import Checkpoint, as_stored, no_checkpoint, operation
from services.scheduler.testing.memory_cancel_writes import MemoryCancelWrites
from services.scheduler.testing.memory_lease_writes import MemoryLeaseWrites, Record
from services.scheduler.usecases.acquire_due import POLL_GRACE
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.execution_store import ExecutionFilter


class MemoryExecutionStore(MemoryLeaseWrites, MemoryCancelWrites):
    """Implements `ExecutionStore`; the clock stands for the database's own."""

    def __init__(self, retention: timedelta, clock: Clock, checkpoint: Checkpoint = no_checkpoint) -> None:
        super().__init__(retention, checkpoint)
        self._clock = clock
        self.events: list[AuditEvent] = []
        """The audit events that travelled with changes, in order."""

    @property
    def executions(self) -> Mapping[str, Execution]:
        """All executions by id, for a test that looks on."""
        return {execution_id: record.execution for execution_id, record in self._records.items()}

    async def insert_new(self, executions: Sequence[Execution], *, audit: AuditEvent | None = None) -> None:
        """Store executions; one whose id exists stays as it is."""
        if not executions:
            raise ValueError("nothing to insert")
        async with operation(self._checkpoint, "executions.insert_new"):
            for execution in executions:
                if execution.execution_id not in self._records:
                    stored = as_stored(execution)
                    self._records[execution.execution_id] = Record(stored)
                    self._recalled[execution.execution_id] = stored
                    self._note(audit)

    async def get(self, scope: OrgScope, execution_id: str) -> Execution:
        """Return an execution."""
        async with operation(self._checkpoint, "executions.get"):
            record = self._records.get(execution_id)
            if record is None or not _within(scope, record.execution):
                raise NotFoundError("execution", execution_id)
            return record.execution

    async def find_page(
        self, scope: OrgScope, where: ExecutionFilter, *, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Return executions, latest fire first, that come after (fire time, id), without their answers' bytes."""
        async with operation(self._checkpoint, "executions.find_page"):
            found = [
                record.execution
                for record in self._records.values()
                if _within(scope, record.execution)
                and _matches(where, record.execution)
                and (after is None or _newest(record.execution) < after)
            ]
        return [_without_bytes(execution) for execution in sorted(found, key=_newest, reverse=True)[:limit]]

    async def find_window(
        self, job_id: str, start: datetime, end: datetime, *, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Return a job's executions with fire times in [start, end], earliest first, without their answers' bytes."""
        async with operation(self._checkpoint, "executions.find_window"):
            found = [
                record.execution
                for record in self._records.values()
                if record.execution.job_id == job_id
                and start <= record.execution.fire_time <= end
                and (after is None or _newest(record.execution) > after)
            ]
        return [_without_bytes(execution) for execution in sorted(found, key=_newest)[:limit]]

    async def load(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return the executions that exist, by id, of any org, without answers."""
        async with operation(self._checkpoint, "executions.load"):
            return {
                execution_id: _without_answer(self._records[execution_id].execution)
                for execution_id in execution_ids
                if execution_id in self._records
            }

    def recall(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return executions as some replica inserted or granted them, however they stand by now."""
        return {e_id: self._recalled[e_id] for e_id in execution_ids if e_id in self._recalled}

    async def confirm(self) -> None:
        """Return at once: what is read here is there for good."""
        async with operation(self._checkpoint, "executions.confirm"):
            pass

    async def load_with_answers(self, execution_ids: Collection[str]) -> Mapping[str, Execution]:
        """Return the executions that exist, by id, of any org, with their answers but not the answers' bytes."""
        async with operation(self._checkpoint, "executions.load_with_answers"):
            return {
                execution_id: _without_bytes(self._records[execution_id].execution)
                for execution_id in execution_ids
                if execution_id in self._records
            }

    async def take_waiting(
        self, partitions: Collection[int], until: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Hand over executions whose wait ends by `until`."""
        async with operation(self._checkpoint, "executions.take_waiting.find"):
            found = self._find_awake(
                lambda execution, wake: (
                    execution.phase is Phase.WAITING and wake <= until and execution.partition in partitions
                ),
                limit,
                without_orgs,
            )
        # The real store reads and then writes: two dispatchers may both get one here.
        async with operation(self._checkpoint, "executions.take_waiting"):
            for execution in found:
                record = self._records.get(execution.execution_id)
                if record is None:
                    continue
                stored = record.execution
                if stored.phase is not Phase.WAITING or stored.wake_time is None or stored.wake_time > until:
                    continue
                wake = max(stored.wake_time, self._clock.now()) + POLL_GRACE
                record.execution = as_stored(replace(stored, phase=Phase.DISPATCHED, wake_time=wake))
        return found

    async def find_begun(self, request_id: str, now: datetime) -> Sequence[Execution]:
        """Return the executions that a request was granted, while their leases hold at `now`."""
        async with operation(self._checkpoint, "executions.find_begun"):
            return self._find_awake(
                lambda execution, wake: (
                    execution.phase is Phase.LEASED and wake > now and execution.begin_request_id == request_id
                ),
                1000,
            )

    async def find_overdue(
        self, now: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Return executions that no delivery reached in time, and those whose lease ran out, oldest first."""
        async with operation(self._checkpoint, "executions.find_overdue"):
            return self._find_awake(
                lambda execution, wake: execution.phase is not Phase.SETTLING and wake <= now, limit, without_orgs
            )

    async def find_ready(
        self, until: datetime, limit: int, *, without_orgs: Collection[str] = ()
    ) -> Sequence[Execution]:
        """Return all executions that may begin by `until`, delivered or not, oldest first."""
        async with operation(self._checkpoint, "executions.find_ready"):
            return self._find_awake(
                lambda execution, wake: (
                    execution.phase in {Phase.DISPATCHED, Phase.WAITING}
                    and wake <= until + POLL_GRACE
                    and execution.available_time is not None
                    and execution.available_time <= until
                ),
                limit,
                without_orgs,
            )

    async def postpone(self, executions: Sequence[Execution], wake_time: datetime) -> None:
        """Let nobody look at executions before an instant."""
        async with operation(self._checkpoint, "executions.postpone"):
            for execution in executions:
                record = self._records.get(execution.execution_id)
                if record is None or record.execution.wake_time is None:
                    continue
                stored = record.execution
                if _version(stored) == _version(execution):
                    later = max(record.execution.wake_time, wake_time)
                    record.execution = as_stored(replace(stored, wake_time=later))

    async def queue_behind(self, execution: Execution, job_id: str, recheck_time: datetime) -> bool:
        """Let an overlapping execution wait for the running one; False when another one waits already."""
        async with operation(self._checkpoint, "executions.queue_behind"):
            record = self._records.get(execution.execution_id)
            queued = (
                record is not None
                and record.execution.state is ExecutionState.READY
                and not any(other.queue_slot == job_id and other is not record for other in self._records.values())
            )
            if record is not None and queued:
                record.queue_slot = job_id
                record.execution = as_stored(
                    replace(
                        record.execution,
                        phase=Phase.WAITING,
                        wake_time=recheck_time,
                        available_time=recheck_time,
                        wait_reason="OVERLAP",
                    )
                )
        return queued

    async def is_slot_taken(self, job_id: str) -> bool:
        """Whether an execution of the job holds its overlap slot."""
        async with operation(self._checkpoint, "executions.is_slot_taken"):
            return any(record.overlap_slot == job_id for record in self._records.values())

    async def wake_queued(self, job_ids: Collection[str], now: datetime) -> bool:
        """Let executions continue that wait for another of their job to end."""
        woken = False
        async with operation(self._checkpoint, "executions.wake_queued"):
            for record in self._records.values():
                if record.queue_slot in job_ids and record.execution.phase is Phase.WAITING:
                    before = record.execution
                    record.execution = as_stored(replace(before, wake_time=now, available_time=now))
                    woken = woken or record.execution != before
        return woken

    async def settled(self, execution_ids: Collection[str]) -> None:
        """Note that what the end of these executions means for their jobs is done."""
        async with operation(self._checkpoint, "executions.settled"):
            for execution_id in execution_ids:
                record = self._records.get(execution_id)
                if record is not None and record.execution.phase is Phase.SETTLING:
                    record.execution = replace(record.execution, phase=None, wake_time=None)

    async def find_unsettled(self, now: datetime, limit: int) -> Sequence[Execution]:
        """Return final executions whose consequences may not be done."""
        async with operation(self._checkpoint, "executions.find_unsettled"):
            return self._find_awake(lambda execution, wake: execution.phase is Phase.SETTLING and wake <= now, limit)

    async def find_live_jobs(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the jobs have an execution that is not final."""
        async with operation(self._checkpoint, "executions.find_live_jobs"):
            live = {e.job_id for e in self.executions.values() if e.job_id in job_ids and not e.state.is_final}
        return frozenset(live)

    async def withdraw(self, job_id: str, reason: str, now: datetime) -> None:
        """End the READY, never begun, scheduled executions of a job that stops firing, as far as they fired."""
        async with operation(self._checkpoint, "executions.withdraw"):
            for record in self._records.values():
                execution = record.execution
                kind = (execution.job_id, execution.state, execution.attempt_number, execution.cause)
                if kind != (job_id, ExecutionState.READY, 0, Cause.SCHEDULE) or execution.fire_time > now:
                    continue
                record.overlap_slot = record.queue_slot = ""
                record.execution = as_stored(
                    replace(
                        execution,
                        state=ExecutionState.SKIPPED,
                        state_reason=reason,
                        end_time=now,
                        expire_time=now + self._retention,
                        phase=None,
                        wake_time=None,
                        available_time=None,
                        wait_reason="",
                    )
                )

    async def wake_waiting(self, org_id: str, host: str, wake_time: datetime) -> int:
        """Let executions of an org that wait for a host continue at an instant."""
        woken = 0
        async with operation(self._checkpoint, "executions.wake_waiting"):
            for record in self._records.values():
                execution = record.execution
                waits_for = (execution.phase, execution.org_id, execution.wait_host)
                if (
                    waits_for == (Phase.WAITING, org_id, host)
                    and execution.wait_reason in TARGET_WAIT_REASONS
                    and execution.wake_time is not None
                    and execution.wake_time > wake_time
                ):
                    record.execution = as_stored(replace(execution, wake_time=wake_time, available_time=wake_time))
                    woken += 1
        return woken

    async def last_success_times(self, job_ids: Collection[str]) -> Mapping[str, datetime]:
        """Return the fire time of each job's latest SUCCEEDED execution."""
        latest: dict[str, datetime] = {}
        async with operation(self._checkpoint, "executions.last_success_times"):
            for execution in self.executions.values():
                if execution.job_id in job_ids and execution.state is ExecutionState.SUCCEEDED:
                    latest[execution.job_id] = max(
                        latest.get(execution.job_id, execution.fire_time), execution.fire_time
                    )
        return latest

    async def latest_states(self, job_id: str, limit: int) -> Sequence[ExecutionState]:
        """Return the states of the job's latest final executions that ran, latest first."""
        idle = {ExecutionState.SKIPPED, ExecutionState.CANCELLED}
        async with operation(self._checkpoint, "executions.latest_states"):
            ran = [
                execution
                for execution in self.executions.values()
                if execution.job_id == job_id and execution.state.is_final and execution.state not in idle
            ]
        return [execution.state for execution in sorted(ran, key=_newest, reverse=True)[:limit]]

    def _find_awake(
        self, matches: Callable[[Execution, datetime], bool], limit: int, without_orgs: Collection[str] = ()
    ) -> list[Execution]:
        """Return executions with a phase and a wake time that match, earliest first, without answers."""
        found = [
            (execution.wake_time, execution)
            for record in self._records.values()
            if (execution := record.execution).phase is not None
            and execution.wake_time is not None
            and execution.org_id not in without_orgs
            and matches(execution, execution.wake_time)
        ]
        return [_without_answer(execution) for _, execution in sorted(found, key=lambda item: item[0])[:limit]]


def _within(scope: OrgScope, execution: Execution) -> bool:
    return execution.org_id == scope.org_id and scope.allows(execution.project_id)


def _version(execution: Execution) -> tuple[ExecutionState, int, Phase | None]:
    return execution.state, execution.fencing_token, execution.phase


def _newest(execution: Execution) -> tuple[datetime, str]:
    return execution.fire_time, execution.execution_id


def _without_answer(execution: Execution) -> Execution:
    return execution if execution.response is None else replace(execution, response=None)


def _without_bytes(execution: Execution) -> Execution:
    if execution.response is None:
        return execution
    return replace(execution, response=replace(execution.response, body=b"", head=b""))


def _listed_under(where: ExecutionFilter, execution: Execution) -> str:
    callback = execution.callback if where.causes == {Cause.CALLBACK} else None
    return callback.job_id if callback else execution.job_id


def _matches(where: ExecutionFilter, execution: Execution) -> bool:
    return (
        (not where.job_id or where.job_id == _listed_under(where, execution))
        and (not where.project_id or execution.project_id == where.project_id)
        and (not where.states or execution.state in where.states)
        and (not where.causes or execution.cause in where.causes)
        and (not where.trace_id or execution.trace_id == where.trace_id)
        and (where.fire_after is None or execution.fire_time >= where.fire_after)
        and (where.fire_before is None or execution.fire_time < where.fire_before)
    )
