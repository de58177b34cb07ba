"""What must hold after every step: each write of a record and each request to a target is judged as it happens.

The judgement knows the promises, the state diagrams and the jobs' policies, and nothing of how the code keeps them.
What it finds ends the simulation (`Finding`).

| promise | what is checked |
|---|---|
| P1 | a cursor passes no fire that has no record, and starts at the right one; no record without a fire |
| P2 | final states never change; in the end everything is final (`verdict`) |
| P3 | tokens only grow, one by one; a lease goes on to the next holder only when it ran out; a report counts under the
       present token only; no request begins under a lease that is over |
| P4 | no request before its due time, nor before its retry's |
| P5 | what does not run is SKIPPED for a reason that its job gives cause for |
| P6 | no second request where the first may have been sent and the job says FAIL; attempts and waits within policy |
| states | each step is one of the diagrams'; no fire begins of a job that is PAUSED or FAILED |
| overlap | one exclusive execution of a job at a time, from its first grant to its end; one queued |
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import datetime, timedelta

from services.scheduler.domain.begin import MAX_EARLY, MAX_LOSSES
from services.scheduler.domain.execution import Cause, Execution, ExecutionState, Outcome, Phase
from services.scheduler.domain.job import CatchUpMode, Job, JobState, OnUnknownOutcome, OverlapPolicy
from services.scheduler.domain.planning import MISFIRE_GRACE
from services.scheduler.domain.schedule import OneTimeAt, Schedule
from services.scheduler.domain.schedule.engine import ONE_TIME_TOLERANCE
from services.scheduler.testing.memory_lease_writes import KEPT_ATTEMPTS
from tests.support.simulation.kernel import EPOCH, Kernel
from tests.support.simulation.plan import Plan
from tests.support.simulation.seconds_schedule import fires_between
from tests.support.simulation.storage import Storage
from tests.support.simulation.targets import Post, Targets

KEPT_TRACE = 4000
_READY, _RUNNING, _SKIPPED = ExecutionState.READY, ExecutionState.RUNNING, ExecutionState.SKIPPED
_ASKED = {ExecutionState.CANCELLED, ExecutionState.UNKNOWN, ExecutionState.FAILED}
_READS = ("jobs.find", "jobs.load", "jobs.get", "executions.find", "executions.load", "executions.get", "partitions.")
_FOREVER = EPOCH + timedelta(days=1)
_JOB_STEPS = {
    JobState.ACTIVE: {JobState.PAUSED, JobState.FAILED, JobState.COMPLETED, JobState.DELETED},
    JobState.PAUSED: {JobState.ACTIVE, JobState.DELETED},
    JobState.FAILED: {JobState.ACTIVE, JobState.DELETED},
    JobState.COMPLETED: {JobState.ACTIVE, JobState.DELETED},
    JobState.DELETED: set(),
}


class Finding(Exception):  # noqa: N818 - what the simulation looks for
    """A broken promise."""


class Watch:
    """Looks at everything that happens in one simulation."""

    def __init__(self, plan: Plan, kernel: Kernel, storage: Storage, targets: Targets) -> None:
        self._kernel = kernel
        self._records = storage.executions._records
        self._jobs = storage.jobs._jobs
        self._targets = targets
        self._skew = timedelta(seconds=plan.offsets["scheduler"])
        self._any_skew = any(plan.offsets.values())
        self._seen: dict[str, Execution] = {}
        self._seen_jobs: dict[str, Job] = {}
        self._schedules: dict[str, list[Schedule]] = {}
        self._held: dict[str, datetime] = {}
        """Since when jobs are PAUSED or FAILED."""
        self.early_by = lambda _executor: timedelta(0)
        """By how much an executor's idea of the scheduler's clock may be off."""
        self.trace: deque[tuple[int, str, str]] = deque(maxlen=KEPT_TRACE)
        self.steps = 0
        storage.on_written = self.look
        targets.on_start = self.request

    def note(self, subject: str, text: str) -> None:
        self.trace.append((self._kernel.micros, subject, text))

    def found(self, promise: str, subject: str, text: str) -> None:
        """Note a broken promise; the simulation ends with the instant."""
        self.note(subject, f"*** {promise}: {text}")
        self._kernel.failures.append(Finding(f"{promise}: {subject} {text}"))

    def look(self, name: str) -> None:
        """Judge what an operation of the database has changed."""
        self.steps += 1
        if name.startswith(_READS):
            return
        if name.startswith("jobs."):
            for job_id, job in self._jobs.items():
                before_job = self._seen_jobs.get(job_id)
                if job is not before_job:
                    self._seen_jobs[job_id] = job
                    self._job_changed(before_job, job)
            return
        for execution_id, record in self._records.items():
            before, after = self._seen.get(execution_id), record.execution
            if after is not before:
                self._seen[execution_id] = after
                self._changed(before, after)
        if len(self._seen) > len(self._records):
            for execution_id in [key for key in self._seen if key not in self._records]:
                self._removed(self._seen.pop(execution_id))

    # Jobs

    def _job_changed(self, before: Job | None, job: Job) -> None:
        if before is None:
            self._schedules[job.job_id] = [job.definition.schedule]
            self._check_first_fire(job, job.create_time)
            return
        if before.schedule_revision != job.schedule_revision:
            self._schedules[job.job_id].append(job.definition.schedule)
        if before.state is not job.state:
            self.note(job.job_id, f"{before.state} -> {job.state} {job.state_reason}")
            if job.state not in _JOB_STEPS[before.state]:
                self.found("states", job.job_id, f"went from {before.state} to {job.state}")
            if job.state is JobState.COMPLETED:
                self._check_completed(job)
            if job.state in {JobState.PAUSED, JobState.FAILED}:
                self._held[job.job_id] = self._kernel.now()
            else:
                self._held.pop(job.job_id, None)
        if before.next_fire_time != job.next_fire_time:
            self.note(job.job_id, f"cursor {_at(before.next_fire_time)} -> {_at(job.next_fire_time)}")
        self._check_cursor(before, job)

    def _check_cursor(self, before: Job, job: Job) -> None:
        cursor, moved = before.next_fire_time, job.next_fire_time
        resumed = before.state is not JobState.ACTIVE and job.state is JobState.ACTIVE
        anew = before.schedule_revision != job.schedule_revision or resumed
        back = moved is not None and (cursor is None or moved < cursor)
        if back and not anew:
            self.found("P1", job.job_id, f"cursor went back from {_at(cursor)} to {_at(moved)}")
        if anew and job.state is JobState.ACTIVE:
            self._check_first_fire(job, job.update_time)
        if cursor is None:
            return
        if (before.state, before.schedule_revision) == (job.state, job.schedule_revision):
            if job.state is JobState.ACTIVE and moved != cursor:
                until = moved - timedelta(milliseconds=1) if moved else _FOREVER
                self._check_recorded(before, cursor, until)
        elif before.state is JobState.ACTIVE and job.update_time != before.update_time:
            # A caller's change; what the scheduler itself stopped is recorded by the change after that.
            self._check_recorded(before, cursor, job.update_time)
        elif before.state in {JobState.PAUSED, JobState.FAILED} and before.state is not job.state:
            self._check_recorded(before, cursor, before.state_time or before.update_time)

    def _check_recorded(self, job: Job, cursor: datetime, until: datetime) -> None:
        schedule = job.definition.schedule
        for fire in fires_between(schedule, cursor - timedelta(milliseconds=1), until):
            if f"{job.job_id}-{_millis(fire)}" not in self._records:
                self.found("P1", job.job_id, f"left its fire at {_at(fire)} without a record")

    def _check_first_fire(self, job: Job, since: datetime) -> None:
        schedule = job.definition.schedule
        resumed = job.state_time == since
        if isinstance(schedule.rule, OneTimeAt) and not resumed:
            since -= ONE_TIME_TOLERANCE
        first = next(fires_between(schedule, since, _FOREVER), None)
        if job.next_fire_time != first:
            self.found("P1", job.job_id, f"begins at {_at(job.next_fire_time)}, its first fire is {_at(first)}")

    def _check_completed(self, job: Job) -> None:
        live = [
            record.execution.execution_id
            for record in self._records.values()
            if record.execution.job_id == job.job_id
            and record.execution.cause is Cause.SCHEDULE
            and not record.execution.state.is_final
        ]
        if live:
            self.found("states", job.job_id, f"is COMPLETED while {live} go on")

    # Executions

    def _changed(self, before: Execution | None, after: Execution) -> None:
        name = after.execution_id
        if before is None:
            self.note(name, f"new {after.state} {after.state_reason} due {_at(after.due_time)}")
            self._check_new(after)
            return
        if before.state.is_final:
            # Only the settling may still be noted.
            if replace(after, phase=before.phase, wake_time=before.wake_time) != before:
                self.found("P2", name, f"{before.state} changed to {after.state}")
            return
        if (before.state, before.fencing_token) != (after.state, after.fencing_token):
            self.note(
                name,
                f"{before.state}#{before.fencing_token} -> {after.state}#{after.fencing_token} {after.state_reason}"
                f" {after.executor_id if after.state is _RUNNING else ''}"
                f"{'until ' + _at(after.available_time) if after.state is _READY else ''}",
            )
        grown = after.fencing_token - before.fencing_token
        if grown not in {0, 1}:
            self.found("P3", name, f"its token went from {before.fencing_token} to {after.fencing_token}")
        match before.state, after.state:
            case ExecutionState.READY, ExecutionState.READY:
                self._require(not grown, "P3", name, "a new token without a grant")
            case ExecutionState.READY, ExecutionState.RUNNING:
                self._check_grant(before, after)
            case ExecutionState.READY, _:
                self._check_dropped(before, after)
            case ExecutionState.RUNNING, ExecutionState.RUNNING:
                self._check_running(before, after)
            case ExecutionState.RUNNING, ExecutionState.READY:
                self._check_put_back(before, after)
            case _:
                self._check_end(before, after)
        self._check_overlap(after)

    def _require(self, holds: bool, promise: str, name: str, text: str) -> None:
        if not holds:
            self.found(promise, name, text)

    def _check_new(self, execution: Execution) -> None:
        name, job_id = execution.execution_id, execution.job_id
        self._require(execution.fencing_token == 0, "P3", name, "is born with a token")
        if execution.cause is Cause.SCHEDULE:
            fire = execution.fire_time
            known = any(
                next(fires_between(schedule, fire - timedelta(milliseconds=1), fire), None) == fire
                for schedule in self._schedules.get(job_id, ())
            )
            self._require(known, "P1", name, "is of no fire of its job's schedules")
            self._require(fire <= execution.due_time, "P4", name, "is due before its fire")
        if execution.state is _SKIPPED:
            self._check_reason(execution)
        else:
            self._require(execution.state is _READY, "states", name, f"is born {execution.state}")

    def _check_grant(self, before: Execution, after: Execution) -> None:
        name = after.execution_id
        self._require(after.fencing_token == before.fencing_token + 1, "P3", name, "began without a new token")
        self._require(after.attempt_number == before.attempt_number + 1, "P6", name, "did not count its attempt")
        available = before.available_time or before.due_time
        early = available - self._kernel.now()
        self._require(early <= MAX_EARLY + self._skew, "P4", name, f"began {early} before its time")
        held = self._held.get(after.job_id)
        if held and after.begin_time and before.cause is Cause.SCHEDULE and not before.attempt_number:
            late = after.begin_time - held - self._skew
            self._require(late <= timedelta(0), "states", name, f"began {late} after its job was held")

    def _check_running(self, before: Execution, after: Execution) -> None:
        name = after.execution_id
        if after.fencing_token == before.fencing_token:
            self._require(after.executor_id == before.executor_id, "P3", name, "changed hands under one token")
            return
        self._check_ran_out(before)
        lost = after.attempts[-1] if after.attempts else None
        named = lost is not None and (lost.outcome, lost.fencing_token) == (Outcome.LOST, before.fencing_token)
        self._require(named, "P6", name, "was granted anew without the loss on record")
        self._require(after.loss_count == before.loss_count + 1 < MAX_LOSSES, "P6", name, "lost too often")
        policy = self._job(after).definition.on_unknown_outcome
        self._require(policy is OnUnknownOutcome.RETRY, "P6", name, "was granted anew though its job says FAIL")

    def _check_ran_out(self, before: Execution) -> None:
        """Check that the lease that a process takes away is over."""
        left = (before.wake_time or before.due_time) - self._kernel.now()
        text = f"its lease #{before.fencing_token} was taken away {left} before its end"
        self._require(left <= self._skew, "P3", before.execution_id, text)

    def _check_put_back(self, before: Execution, after: Execution) -> None:
        name = after.execution_id
        self._require(after.reported_token == before.fencing_token, "P3", name, "was put back under another token")
        if len(after.attempts) == len(before.attempts) < KEPT_ATTEMPTS:
            number = before.attempt_number - 1
            self._require(after.attempt_number == number, "P6", name, "a deferral used up an attempt")
            return
        retry = self._job(after).definition.retry
        known = _known(after)
        self._require(known < retry.max_attempts, "P6", name, f"is to be tried after {known} of {retry.max_attempts}")
        at = after.available_time or after.due_time
        age = at - max(after.due_time, after.create_time)
        self._require(age <= retry.max_age + self._skew, "P6", name, "is to be tried beyond its age")
        backoff = min(retry.initial_backoff * 2 ** (known - 1), retry.max_backoff)
        asked = self._asked_wait(after)
        latest = self._kernel.now() + max(backoff * 1.2, asked) + self._skew
        self._require(at <= latest, "P6", name, f"waits until {_at(at)} after a backoff of {backoff}")
        if not self._any_skew:
            earliest = after.attempts[-1].end_time + max(backoff, asked)
            self._require(at >= earliest - timedelta(milliseconds=1), "P6", name, f"waits less than {backoff}")

    def _asked_wait(self, execution: Execution) -> timedelta:
        posts = self._targets.posts.get(execution.execution_id, [])
        token = execution.attempts[-1].fencing_token
        asked = [post.retry_after for post in posts if post.grant.lease.fencing_token == token and post.retry_after]
        return timedelta(seconds=asked[-1] if asked else 0)

    def _check_end(self, before: Execution, after: Execution) -> None:
        name = after.execution_id
        self._require(after.state is not _SKIPPED, "P5", name, "was SKIPPED while it ran")
        self._require(after.fencing_token == before.fencing_token, "P3", name, "ended with another token")
        if after.reported_token != before.fencing_token:
            self._check_ran_out(before)
            self._require(after.state in _ASKED, "P3", name, f"ended {after.state} without a report under its token")
        most = self._job(after).definition.retry.max_attempts
        self._require(_known(after) <= most, "P6", name, f"ended after {_known(after)} attempts of {most}")
        if after.state is ExecutionState.SUCCEEDED:
            self._require(name in self._targets.posts, "P2", name, "SUCCEEDED without a request")

    def _check_dropped(self, before: Execution, after: Execution) -> None:
        name = after.execution_id
        if after.state is _SKIPPED:
            sent = any(post.may_be_sent for post in self._targets.posts.get(name, ()))
            self._require(not sent, "P5", name, "is SKIPPED after a request")
            self._check_reason(after)
        else:
            self._require(after.state is ExecutionState.CANCELLED, "states", name, f"went READY -> {after.state}")
            self._require(bool(after.state_reason), "P5", name, "is CANCELLED without a reason")

    def _check_reason(self, execution: Execution) -> None:
        """Check that a job gives cause for the reason that its fire was left out for."""
        job = self._job(execution)
        late = self._kernel.now() - execution.due_time + self._skew
        policy = job.definition.catch_up
        states = {change.state for change in job.state_changes} | {job.state}
        match execution.state_reason:
            case "COALESCED":
                holds = policy.mode is CatchUpMode.LATEST and late > MISFIRE_GRACE
            case "CATCH_UP_LIMIT":
                holds = policy.mode is CatchUpMode.ALL and late > MISFIRE_GRACE
            case "MISSED":
                holds = policy.mode is CatchUpMode.NONE and late > MISFIRE_GRACE
            case "CATCH_UP_WINDOW":
                holds = late > max(policy.window, MISFIRE_GRACE)
            case "OVERLAP":
                holds = (
                    job.definition.overlap is not OverlapPolicy.ALLOW and execution.exclusive and late >= -self._skew
                )
            case "SCHEDULE_CHANGED":
                holds = job.schedule_revision > 1
            case "JOB_PAUSED" | "JOB_FAILED" | "JOB_DELETED" as reason:
                # The fires of a change are recorded right before it.
                holds = JobState(reason[4:]) in states or execution.end_time is not None
            case reason:
                holds = bool(reason) and bool(execution.cancel_reason)
        self._require(holds, "P5", execution.execution_id, f"was left out as {execution.state_reason!r} without cause")

    def _check_overlap(self, execution: Execution) -> None:
        if not execution.exclusive or execution.state.is_final:
            return
        others = [
            other
            for record in self._records.values()
            if (other := record.execution).job_id == execution.job_id
            and other.exclusive
            and not other.state.is_final
            and other is not execution
        ]
        if execution.fencing_token and any(other.fencing_token for other in others):
            self.found("overlap", execution.execution_id, "runs beside another execution of its job")
        if _queued(execution) and any(_queued(other) for other in others):
            self.found("overlap", execution.execution_id, "is queued beside another execution of its job")

    def _removed(self, execution: Execution) -> None:
        job = self._job(execution)
        ahead = execution.fire_time - self._kernel.now()
        # The call that removes it told the time before it was done.
        unfired = ahead > -self._skew - timedelta(seconds=60)
        asked = execution.execution_id in self._targets.posts
        gone = job.state is JobState.DELETED and unfired and not asked
        self._require(gone, "P1", execution.execution_id, "was removed")

    # Requests

    def request(self, post: Post) -> None:
        """Judge a request that begins."""
        lease, name = post.grant.lease, post.grant.lease.execution_id
        self.note(name, f"POST #{lease.fencing_token} by {post.executor}")
        record = self._records.get(name)
        if record is None:
            self.found("P1", name, "is requested and has no record")
            return
        execution, job, now = record.execution, self._job(record.execution), self._kernel.now()
        early = max(execution.due_time, post.grant.due_time) - now - self.early_by(post.executor)
        self._require(early <= timedelta(0), "P4", name, f"is requested {early} early")
        before = self._targets.posts.get(name, [])
        tokens = [other.grant.lease.fencing_token for other in before]
        self._require(lease.fencing_token not in tokens, "P3", name, f"is requested twice under #{lease.fencing_token}")
        if job.definition.on_unknown_outcome is OnUnknownOutcome.FAIL:
            sent = any(other.may_be_sent for other in before)
            self._require(not sent, "P6", name, "is requested again though its job says FAIL")
        current = execution.state is _RUNNING and execution.fencing_token == lease.fencing_token
        left = (execution.wake_time or now) - now + self._skew
        if self._skew:
            # Another replica may believe that the lease is over, which costs a double at most.
            return
        self._require(current, "P3", name, f"is requested under #{lease.fencing_token}, which is over")
        self._require(left > timedelta(0), "P3", name, f"is requested {-left} after its lease ran out")

    def _job(self, execution: Execution) -> Job:
        return self._jobs[execution.job_id]


def _known(execution: Execution) -> int:
    """Return how many attempts count against the budget: those whose end is known."""
    return sum(attempt.outcome is not Outcome.LOST for attempt in execution.attempts)


def _queued(execution: Execution) -> bool:
    return execution.phase is Phase.WAITING and execution.wait_reason == "OVERLAP"


def _at(instant: datetime | None) -> str:
    return "-" if instant is None else f"{(instant - EPOCH).total_seconds():.3f}"


def _millis(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=instant.tzinfo)) // timedelta(milliseconds=1)
