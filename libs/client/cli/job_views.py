"""How jobs, their fires and their explanations look."""

from __future__ import annotations

from punctual.v1.job_pb2 import Header, Job
from punctual.v1.job_service_pb2 import BatchCreateJobsResult, CreateJobResponse, FireExplanation, UpdateJobResponse
from punctual.v1.schedule_pb2 import Fire, FireAdjustment

from libs.client.cli import wording
from libs.client.cli.output import Column, within


def _state(job: Job) -> str:
    return wording.short_name(Job.State.Name(job.state), "STATE_")


def _state_with_reason(job: Job) -> str:
    return "  ".join(part for part in (_state(job), job.state_reason, job.state_note) if part)


def _headers(job: Job) -> str:
    return "\n".join(_header(header) for header in job.target.headers) or wording.NOTHING


def _header(header: Header) -> str:
    return f"{header.name}: {header.value}"


def _adjustments(fire: Fire) -> str:
    names = (FireAdjustment.Name(value) for value in fire.adjustments)
    return ", ".join(wording.short_name(name, "FIRE_ADJUSTMENT_") for name in names)


def _fire_line(fire: Fire) -> str:
    return f"{wording.instant(fire.fire_time)}  {fire.local_time}  {_adjustments(fire)}".rstrip()


JOB_ROW: list[Column[Job]] = [
    Column("job", lambda job: job.job_id),
    Column("state", _state),
    Column("next fire", lambda job: wording.instant(job.next_fire_time)),
    Column("schedule", lambda job: wording.schedule(job.schedule)),
    Column("project", lambda job: job.project_id),
    Column("name", lambda job: job.name),
]

JOB_CARD: list[Column[Job]] = [
    Column("job", lambda job: job.job_id),
    Column("name", lambda job: job.name),
    Column("project", lambda job: job.project_id),
    Column("labels", lambda job: wording.label_text(dict(job.labels))),
    Column("state", _state_with_reason),
    Column("schedule", lambda job: wording.schedule(job.schedule)),
    Column("next fire", lambda job: wording.instant(job.next_fire_time)),
    Column("url", lambda job: job.target.url),
    Column("headers", _headers),
    Column("prompt", lambda job: job.target.prompt),
    Column("failures in a row", lambda job: f"{job.consecutive_failures} of {job.max_consecutive_failures}"),
    Column("created", lambda job: f"{wording.instant(job.create_time)} by {job.creator or wording.NOTHING}"),
    Column("etag", lambda job: job.etag),
]

CREATED_CARD: list[Column[CreateJobResponse]] = [
    *within(lambda answer: answer.job, JOB_CARD),
    Column("next fires", lambda answer: "\n".join(map(_fire_line, answer.next_fires)) or wording.NOTHING),
    Column("replayed", lambda answer: "yes, the job existed already" if answer.replayed else "no"),
]

UPDATED_CARD: list[Column[UpdateJobResponse]] = [
    *within(lambda answer: answer.job, JOB_CARD),
    Column("next fires", lambda answer: "\n".join(map(_fire_line, answer.next_fires)) or wording.NOTHING),
]

BATCH_ROW: list[Column[BatchCreateJobsResult]] = [
    Column("job", lambda result: result.job.job_id or wording.NOTHING),
    Column("next fire", lambda result: wording.instant(result.job.next_fire_time)),
    Column("refused", lambda result: " ".join(_refusal(result))),
]


def _refusal(result: BatchCreateJobsResult) -> list[str]:
    error = result.error
    return [part for part in (error.reason, error.field, error.message) if part]


FIRE_ROW: list[Column[Fire]] = [
    Column("fire time", lambda fire: wording.instant(fire.fire_time)),
    Column("local time", lambda fire: fire.local_time),
    Column("adjusted", _adjustments),
]

EXPLANATION_ROW: list[Column[FireExplanation]] = [
    Column("fire time", lambda fire: wording.instant(fire.fire_time)),
    Column("decision", lambda fire: fire.decision),
    Column("reason", lambda fire: fire.reason or wording.NOTHING),
    Column("execution", lambda fire: fire.execution.execution_id or wording.NOTHING),
    Column("explanation", lambda fire: fire.explanation),
]
