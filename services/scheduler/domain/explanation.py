"""Says of a fire why it did or did not run: the decision, its stable reason, and a sentence that says all for people.

What has an execution is explained by its record. What has none is worked out: the schedule names the instant, and the
job's changes of state say whether it was active then, and who held it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.scheduler.domain.execution import Attempt, Cause, Execution, ExecutionState
from services.scheduler.domain.job import Job, JobState, StateChange
from services.scheduler.domain.sentences import attempt_text, instant_text, span_text

SHOWN_ATTEMPTS = 5
"""Attempts that a sentence tells of, the last ones."""


class FireDecision(enum.StrEnum):
    """What came, or comes, of a fire."""

    RAN = "RAN"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    SKIPPED = "SKIPPED"
    NOT_FIRED = "NOT_FIRED"
    UPCOMING = "UPCOMING"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one fire did or did not run."""

    fire_time: datetime
    decision: FireDecision
    reason: str
    text: str
    execution: Execution | None = None

    @property
    def key(self) -> tuple[datetime, str]:
        """Where it stands among others: the fire time, and the execution's id or nothing."""
        return self.fire_time, self.execution.execution_id if self.execution else ""


def explain_execution(execution: Execution, job: Job, now: datetime) -> Explanation:
    """Explain a fire or a request by its record."""
    decision, reason, text = _by_state(execution, job, now)
    return Explanation(execution.fire_time, decision, reason, f"{_origin(execution)} {text}", execution)


def explain_absence(fire_time: datetime, job: Job, now: datetime, window_start: datetime) -> Explanation:
    """Explain an instant that the present schedule names and of which there is no record."""
    decision, reason, text = _without_record(fire_time, job, now)
    if job.schedule_revision > 1 and job.schedule_time and job.schedule_time > window_start:
        text += (
            f" Worked out from the schedule in force since {instant_text(job.schedule_time)}; what an earlier one "
            "named is told only where there is a record."
        )
    return Explanation(fire_time, decision, reason, text)


def state_before(job: Job, instant: datetime) -> StateChange | None:
    """Return the change that made the job's state as it was just before an instant; None: ACTIVE since its creation."""
    return next((change for change in reversed(job.state_changes) if change.time < instant), None)


def _by_state(execution: Execution, job: Job, now: datetime) -> tuple[FireDecision, str, str]:
    match execution.state:
        case ExecutionState.READY if execution.due_time > now:
            wait = span_text(execution.due_time - now)
            return FireDecision.UPCOMING, "", f"It is due in {wait}, at {instant_text(execution.due_time)}."
        case ExecutionState.READY:
            return FireDecision.WAITING, *_waiting(execution, job, now)
        case ExecutionState.RUNNING:
            return FireDecision.RUNNING, "", _running(execution, job)
        case ExecutionState.SKIPPED:
            return FireDecision.SKIPPED, execution.state_reason, _skipped(execution, job)
        case ExecutionState.CANCELLED if not execution.attempts:
            return FireDecision.SKIPPED, execution.state_reason, f"It was {_stopped_by(execution)} before it began."
        case _:
            return FireDecision.RAN, execution.state_reason, _ran(execution)


def _origin(execution: Execution) -> str:
    at = instant_text(execution.fire_time)
    match execution.cause:
        case Cause.SCHEDULE if execution.due_time > execution.fire_time:
            jitter = span_text(execution.due_time - execution.fire_time)
            return f"The schedule fired at {at}, and jitter made it due {jitter} later."
        case Cause.SCHEDULE:
            return f"The schedule fired at {at}."
        case Cause.RETRY_REQUEST:
            return f"A caller asked at {at} to repeat execution {execution.retried_execution_id}."
        case _:
            return f"A caller asked for it at {at}."


def _waiting(execution: Execution, job: Job, now: datetime) -> tuple[str, str]:
    available = execution.available_time or execution.due_time
    until, over = instant_text(available), available <= now
    waits = f"It waited until {until}" if over else f"It waits until {until}"
    unbegun = " No executor has begun it since." if over else ""
    put_back = _deferrals(execution)
    match execution.wait_reason:
        case "OVERLAP":
            return "OVERLAP", f"It waits for the execution before it to end.{put_back}"
        case "" if execution.attempt_number:
            following = _of_all(execution.attempt_number + 1, execution, job)
            return "RETRY", f"{waits} for attempt {following}.{unbegun} {_attempts(execution)}"
        case "":
            return "NOT_BEGUN", f"It is due, and no executor has begun it yet.{put_back}"
        case limit:
            return limit, f"{waits}, put back by {limit}.{unbegun}{put_back}"


def _running(execution: Execution, job: Job) -> str:
    since = f" since {instant_text(execution.begin_time)}" if execution.begin_time else ""
    attempt = _of_all(execution.attempt_number, execution, job)
    asked = f" It is {_stopped_by(execution)}; the executor ends it soon." if execution.cancel_reason else ""
    return f"Attempt {attempt} runs{since} at executor {execution.executor_id}.{_deferrals(execution)}{asked}"


def _of_all(number: int, execution: Execution, job: Job) -> str:
    # A lost attempt has a number, and spares those of the policy; and the policy may allow fewer by now.
    return f"{number} of {max(number, job.definition.retry.max_attempts + execution.loss_count)}"


def _ran(execution: Execution) -> str:
    parts = []
    if execution.start_time is not None and execution.lag_micros is not None:
        lag = span_text(timedelta(microseconds=execution.lag_micros))
        parts.append(f"It began {lag} after its due time.")
    parts.append(_attempts(execution))
    why = f" ({execution.state_reason})" if execution.state_reason else ""
    end = f" at {instant_text(execution.end_time)}" if execution.end_time else ""
    parts.append(f"It ended {execution.state.value}{why}{end}.{_deferrals(execution)}")
    if execution.state is ExecutionState.CANCELLED and execution.cancel_reason:
        parts.append(f"It was {_stopped_by(execution)}.")
    return " ".join(part for part in parts if part)


def _attempts(execution: Execution) -> str:
    shown: list[Attempt] = list(execution.attempts)[-SHOWN_ATTEMPTS:]
    return " ".join(attempt_text(attempt) for attempt in shown)


def _deferrals(execution: Execution) -> str:
    count = execution.deferral_count
    return f" It was put back {count} times without using up an attempt." if count else ""


def _stopped_by(execution: Execution) -> str:
    note = f": {execution.cancel_note}" if execution.cancel_note else ""
    return f"cancelled by {execution.cancel_actor or 'a caller'}{note}"


_SKIP_TEXTS: Mapping[str, Callable[[Job], str]] = {
    "OVERLAP": lambda job: (
        "an earlier execution of the job had not ended when it was due, and the overlap policy is "
        f"{job.definition.overlap.value}"
    ),
    "COALESCED": lambda _: "nobody could run it in time, and of the missed fires only the latest one runs",
    "CATCH_UP_LIMIT": lambda job: (
        f"nobody could run it in time, and only the latest {job.definition.catch_up.max_fires} missed fires run"
    ),
    "CATCH_UP_WINDOW": lambda job: (
        f"nobody could run it within {span_text(job.definition.catch_up.window)}, the window of the catch-up policy"
    ),
    "MISSED": lambda _: "nobody could run it in time, and the catch-up policy runs no missed fires",
    "SCHEDULE_CHANGED": lambda _: "the schedule was changed before it began, and the new one does not name its instant",
}
_OF_POLICY = frozenset({"OVERLAP", "CATCH_UP_LIMIT", "CATCH_UP_WINDOW"})
"""Reasons whose texts tell what a policy says."""
_HELD_STATES = {"JOB_PAUSED": JobState.PAUSED, "JOB_FAILED": JobState.FAILED, "JOB_DELETED": JobState.DELETED}


def _skipped(execution: Execution, job: Job) -> str:
    reason = execution.state_reason
    if reason in _SKIP_TEXTS:
        return f"It was skipped: {_SKIP_TEXTS[reason](job)}.{_caveat(execution, job)}"
    if reason in _HELD_STATES:
        # The latest hold of that kind up to the skip itself is the one that caused it.
        holds = [change for change in job.state_changes if change.state is _HELD_STATES[reason]]
        end = execution.end_time
        hold = next((change for change in reversed(holds) if end is None or change.time <= end), None)
        return f"It was skipped: {_hold(_HELD_STATES[reason], hold)}."
    return f"It was skipped: {reason}."


def _caveat(execution: Execution, job: Job) -> str:
    """Return what makes the text of a skip true that tells of a definition which has changed since."""
    if execution.state_reason in _OF_POLICY and execution.job_revision < job.definition_revision:
        return " What it says of the policy is how it stands now; the job was changed since it fired."
    if execution.state_reason == "SCHEDULE_CHANGED" and job.schedule_time and execution.end_time:
        at = instant_text(job.schedule_time)
        by_it = job.schedule_time <= execution.end_time
        return f" That is in force since {at}." if by_it else f" It was changed once more at {at}."
    return ""


def _without_record(fire_time: datetime, job: Job, now: datetime) -> tuple[FireDecision, str, str]:
    if fire_time > now:
        change = job.state_changes[-1] if job.state_changes else None
        if job.state is JobState.ACTIVE:
            return FireDecision.UPCOMING, "", f"It fires in {span_text(fire_time - now)}, at {instant_text(fire_time)}."
        return FireDecision.NOT_FIRED, f"JOB_{job.state.value}", f"It will not fire: {_hold(job.state, change)}."
    change = state_before(job, fire_time)
    state = change.state if change else JobState.ACTIVE
    if state is not JobState.ACTIVE:
        return FireDecision.NOT_FIRED, f"JOB_{state.value}", f"It did not fire: {_hold(state, change)}."
    if job.next_fire_time and fire_time >= job.next_fire_time:
        if job.state is JobState.ACTIVE:
            return FireDecision.WAITING, "NOT_DISPATCHED", "It has come, and no dispatcher has taken it up yet."
        # The scheduler itself stopped the job before a tick came to this fire. Its next change makes the record.
        change = job.state_changes[-1] if job.state_changes else None
        return FireDecision.NOT_FIRED, f"JOB_{job.state.value}", f"It did not run: {_hold(job.state, change)}."
    return FireDecision.NOT_FIRED, "NO_RECORD", "The job was active, yet there is no record of it: please report it."


def _hold(state: JobState, change: StateChange | None) -> str:
    verbs = {JobState.PAUSED: "paused", JobState.DELETED: "deleted", JobState.FAILED: "ended as failed"}
    if state is JobState.COMPLETED:
        return "the job was completed"
    verb = verbs.get(state, state.value)
    if change is None or change.state is not state:
        return f"the job was {verb}"
    reason = "" if change.reason.endswith("_BY_CALLER") else f" ({change.reason})"
    note = f": {change.note}" if change.note else ""
    return f"the job was {verb} by {change.actor} at {instant_text(change.time)}{reason}{note}"
