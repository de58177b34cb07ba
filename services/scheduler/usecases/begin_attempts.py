"""Grants attempts: of executions that the stream delivered, and of those that no delivery reached (the poll path).

A grant takes the execution to RUNNING under a lease with a new fencing token, by compare-and-set; whoever comes second
is refused. Both ways share all but the question which executions are meant, so redelivery has no rules of its own.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from libs.common.instants import truncate_to_millis
from libs.common.turns import in_turns
from libs.common.value_type import value_type
from services.scheduler.domain.begin import End, Grant, Refuse, Skip, decide_begin
from services.scheduler.domain.callback import callback_job
from services.scheduler.domain.execution import Cause, DeliveryPath, Execution, ExecutionState
from services.scheduler.domain.job import Job, OverlapPolicy
from services.scheduler.domain.request_size import largest_request
from services.scheduler.usecases.begin_endings import end_lost, end_unreadable, lost_attempt, skip, waited_for_key
from services.scheduler.usecases.org_turns import OrgTurns
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.ports.execution_writes import FinishWrite, GrantWrite, Lease
from services.scheduler.usecases.ports.job_store import JobStore
from services.scheduler.usecases.ports.secret_opener import SecretOpener
from services.scheduler.usecases.settle import OVERLAP_REASON, SettleFinished

QUEUE_RECHECK = timedelta(seconds=30)
"""When an execution that waits for another one is looked at anyway, should the wake-up be lost with its process."""

UNREADABLE_RECHECK = timedelta(seconds=5)
"""When an execution that waits for a key is looked at again; less and less often, the longer it waits."""

MAX_REPLY_BYTES = 32 * 1024 * 1024
"""Bytes of requests in one reply; half of what a message may have."""

LEAD = timedelta(milliseconds=250)
"""How long before its time the poll path hands out an execution; the executor waits for the rest."""


@value_type
class GrantedAttempt:
    """An execution under its new lease, with the job that says what to do."""

    execution: Execution
    job: Job
    attempt_number: int
    fencing_token: int


@dataclass(slots=True)
class BeginBatch:
    """What came of a batch: grants, and refusals by execution id."""

    granted: list[GrantedAttempt] = field(default_factory=list)
    refused: dict[str, Refuse] = field(default_factory=dict)
    more: bool = False
    size_bytes: int = 0
    """More than what the requests of the grants take."""


@dataclass(slots=True)
class BeginAttempts:
    """Serves the executors' begin and poll calls."""

    jobs: JobStore
    executions: ExecutionStore
    settle: SettleFinished
    secrets: SecretOpener
    clock: Clock
    lease: timedelta
    _overdue_turns: OrgTurns = field(init=False)
    _ready_turns: OrgTurns = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        self._overdue_turns, self._ready_turns = OrgTurns(self.clock), OrgTurns(self.clock)

    async def begin(self, executor_id: str, request_id: str, execution_ids: Collection[str]) -> BeginBatch:
        """Grant delivered executions; a repetition under the same request id returns the same grants."""
        batch = BeginBatch()
        # One that this replica materialized is most likely as it was then, and its grant tells if it is not.
        fresh = [one for one in self.executions.recall(execution_ids).values() if not one.fencing_token]
        await self._grant(executor_id, request_id, fresh, DeliveryPath.STREAM, batch, as_remembered=True)
        decided = {granted.execution.execution_id for granted in batch.granted} | batch.refused.keys()
        if left := [execution_id for execution_id in execution_ids if execution_id not in decided]:
            found = await self.executions.load(left)
            await self._grant(executor_id, request_id, found.values(), DeliveryPath.STREAM, batch)
            batch.refused |= {execution_id: Refuse("NOT_FOUND") for execution_id in left if execution_id not in found}
        return batch

    async def poll_overdue(self, executor_id: str, request_id: str, limit: int) -> BeginBatch:
        """Grant executions that no delivery reached within the grace, and those whose lease ran out."""
        now = self.clock.now()

        async def find(most: int, without_orgs: Collection[str]) -> Sequence[Execution]:
            return await self.executions.find_overdue(now, most, without_orgs=without_orgs)

        look = await self._overdue_turns.look(find, 2 * limit)
        return await self._poll(executor_id, request_id, limit, look.found)

    async def poll_all(self, executor_id: str, request_id: str, limit: int) -> BeginBatch:
        """Grant all that is due within the lead, delivered or not: the delivery while Redis is away."""
        until = self.clock.now() + LEAD

        async def find(most: int, without_orgs: Collection[str]) -> Sequence[Execution]:
            return await self.executions.find_ready(until, most, without_orgs=without_orgs)

        look = await self._ready_turns.look(find, 2 * limit)
        return await self._poll(executor_id, request_id, limit, look.found)

    async def begun(self, request_id: str) -> BeginBatch:
        """Return what an earlier copy of a poll was granted; its answer was lost on the way, and nobody knows of it."""
        found = await self.executions.find_begun(request_id, self.clock.now())
        if found:
            await self.executions.confirm()
        jobs, unreadable = await self._load_jobs(found)
        return BeginBatch(
            granted=[
                GrantedAttempt(execution, jobs[execution.job_id], execution.attempt_number, execution.fencing_token)
                for execution in found
                if execution.job_id in jobs and execution.job_id not in unreadable
            ]
        )

    async def _load_jobs(self, executions: Collection[Execution]) -> tuple[dict[str, Job], frozenset[str]]:
        """Return the jobs of executions with their secrets in clear, and the ids of those that cannot be read."""
        callbacks = {execution.job_id: callback_job(execution) for execution in executions if execution.callback}
        wanted = {execution.job_id for execution in executions} - callbacks.keys()
        jobs = await self.jobs.load(wanted) if wanted else {}
        opened = {job_id: self.secrets.open(job) async for job_id, job in in_turns(jobs.items())}
        unreadable = frozenset(job_id for job_id, job in opened.items() if job is None)
        if missing := wanted - jobs.keys():
            # What is there and cannot be read is not gone: another version of this service may know it.
            unreadable |= await self.jobs.find_existing(missing)
        return {job_id: opened[job_id] or job for job_id, job in jobs.items()} | callbacks, unreadable

    async def _poll(self, executor_id: str, request_id: str, limit: int, found: Sequence[Execution]) -> BeginBatch:
        # Executors that poll at one moment find the same executions; a random half lets most of them win something.
        chosen = found if len(found) <= limit else random.sample(found, limit)
        batch = BeginBatch()
        await self._grant(executor_id, request_id, chosen, DeliveryPath.POLL, batch)
        batch.more = batch.more or len(found) > limit
        return batch

    async def _grant(
        self,
        executor_id: str,
        request_id: str,
        found: Collection[Execution],
        path: DeliveryPath,
        batch: BeginBatch,
        *,
        as_remembered: bool = False,
    ) -> None:
        """Grant or refuse executions as they were read; of those as remembered leave open what is not granted."""
        if not found:
            return
        now = truncate_to_millis(self.clock.now())
        jobs, unreadable = await self._load_jobs(found)
        writes: Sequence[GrantWrite]
        if as_remembered:
            writes = [
                GrantWrite(execution, job.revision)
                async for execution in in_turns(found)
                if execution.job_id not in unreadable
                and (job := jobs.get(execution.job_id)) is not None
                and decide_begin(execution, job, now) == Grant()
            ]
        else:
            writes = await self._decide(found, jobs, unreadable, batch, request_id=request_id, now=now)
        if writes:
            lease = Lease(request_id, executor_id, now, now + self.lease, path)
            writes = self._that_fit(writes, jobs, batch, now)
            lost = await self._write_grants(lease, writes, jobs, batch)
            if not as_remembered:
                batch.refused |= {execution.execution_id: Refuse("LEASED") for execution in lost}

    async def _decide(
        self,
        found: Collection[Execution],
        jobs: Mapping[str, Job],
        unreadable: Collection[str],
        batch: BeginBatch,
        *,
        request_id: str,
        now: datetime,
    ) -> Sequence[GrantWrite]:
        """Return what is to be granted; end, refuse or postpone the rest."""
        writes: list[GrantWrite] = []
        ends: list[FinishWrite] = []
        later: list[Execution] = []
        repeated: list[GrantedAttempt] = []
        async for execution in in_turns(found):
            job = jobs.get(execution.job_id)
            readable = execution.job_id not in unreadable
            if job is not None and readable and _is_repetition(execution, request_id):
                repeated.append(GrantedAttempt(execution, job, execution.attempt_number, execution.fencing_token))
                continue
            if job is None and not readable:
                batch.refused[execution.execution_id] = Refuse("NOT_READY")
                later.append(execution)
                continue
            match decide_begin(execution, job, now):
                case Grant() if not readable:
                    batch.refused[execution.execution_id] = Refuse("NOT_READY")
                    if waited_for_key(execution, now):
                        ends.append(end_unreadable(execution, now))
                    else:
                        later.append(execution)
                case Grant(lost_lease) if job is not None:
                    lost = lost_attempt(execution, now, "RETRY") if lost_lease else None
                    writes.append(GrantWrite(execution, job.revision, lost))
                case Skip(reason):
                    ends.append(skip(execution, reason, now))
                    batch.refused[execution.execution_id] = Refuse("SKIPPED")
                case End(state, reason):
                    ends.append(end_lost(execution, state, reason, now))
                    batch.refused[execution.execution_id] = Refuse("FINAL")
                case Refuse() as refusal:
                    batch.refused[execution.execution_id] = refusal
        if repeated:
            # A grant that is lost with its primary is given to another executor under the same token.
            await self.executions.confirm()
            batch.granted += repeated
        await self._end(ends, jobs)
        if later:
            # Otherwise the oldest of them would be all that a poll finds.
            waited = now - min(execution.available_time or execution.due_time for execution in later)
            await self.executions.postpone(later, now + max(UNREADABLE_RECHECK, waited / 4))
        return writes

    def _that_fit(
        self, writes: Sequence[GrantWrite], jobs: Mapping[str, Job], batch: BeginBatch, now: datetime
    ) -> Sequence[GrantWrite]:
        """Return the first grants whose requests fit one reply, and refuse the others until the next call."""
        for index, write in enumerate(writes):
            batch.size_bytes += largest_request(jobs[write.execution.job_id].definition)
            if batch.size_bytes > MAX_REPLY_BYTES and (index or batch.granted):
                left = {surplus.execution.execution_id: Refuse("LATER", now) for surplus in writes[index:]}
                batch.refused |= left
                batch.more = True
                return writes[:index]
        return writes

    async def _write_grants(
        self, lease: Lease, writes: Sequence[GrantWrite], jobs: Mapping[str, Job], batch: BeginBatch
    ) -> Sequence[Execution]:
        """Write grants, and return the executions that somebody else changed since they were read."""
        lost: list[Execution] = []
        result = await self.executions.grant(lease, writes)
        # If we die here, the grants are leases that nobody knows of; the executor repeats the call under the same
        # request id and gets them, or the leases run out and the poll path grants anew.
        crash_point("scheduler.granted")
        for write in writes:
            execution = write.execution
            if execution.execution_id in result.granted:
                batch.granted.append(
                    GrantedAttempt(
                        execution,
                        jobs[execution.job_id],
                        execution.attempt_number + 1,
                        execution.fencing_token + 1,
                    )
                )
            elif execution.execution_id in result.overlapping:
                batch.refused[execution.execution_id] = await self._decide_overlap(
                    execution, jobs[execution.job_id], lease.begin_time
                )
            else:
                lost.append(execution)
        return lost

    async def _decide_overlap(self, execution: Execution, job: Job, now: datetime) -> Refuse:
        """Decide a fire that met a running execution of its job: at its due time, not by the lead before it."""
        if execution.due_time > now:
            return Refuse("OVERLAP_UNDECIDED", execution.due_time)
        if job.definition.overlap is OverlapPolicy.QUEUE_ONE and await self.executions.queue_behind(
            execution, job.job_id, now + QUEUE_RECHECK
        ):
            if await self.executions.is_slot_taken(job.job_id):
                return Refuse("QUEUED")
            # The one in front ended before this one stood in line, and woke nobody.
            await self.executions.wake_queued({job.job_id}, now)
            return Refuse("QUEUED", now)
        await self._end([skip(execution, OVERLAP_REASON, now)], {job.job_id: job})
        return Refuse("SKIPPED")

    async def _end(self, ends: Sequence[FinishWrite], jobs: Mapping[str, Job]) -> None:
        if ends:
            finished = await self.executions.finish(ends)
            # A callback's job, which has its id, is in no store.
            callbacks = {end.execution_id for end in ends if end.cause is Cause.CALLBACK}
            stored = {job_id: job for job_id, job in jobs.items() if job_id not in callbacks}
            await self.settle([write for write in ends if write.execution_id in finished], stored)


def _is_repetition(execution: Execution, request_id: str) -> bool:
    return execution.state is ExecutionState.RUNNING and execution.begin_request_id == request_id
