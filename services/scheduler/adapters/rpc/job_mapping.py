"""From jobs to their messages, as callers get to see them: secrets masked."""

from __future__ import annotations

from punctual.v1 import job_pb2

from libs.common.rpc.timestamps import to_timestamp
from services.scheduler.adapters.rpc.definition_mapping import from_definition
from services.scheduler.adapters.rpc.enum_values import choose
from services.scheduler.domain.job import Job, JobState
from services.scheduler.domain.request_headers import MASK

_STATES = {
    JobState.ACTIVE: job_pb2.Job.STATE_ACTIVE,
    JobState.PAUSED: job_pb2.Job.STATE_PAUSED,
    JobState.COMPLETED: job_pb2.Job.STATE_COMPLETED,
    JobState.FAILED: job_pb2.Job.STATE_FAILED,
    JobState.DELETED: job_pb2.Job.STATE_DELETED,
}


def to_job_state(state: job_pb2.Job.State.ValueType, field: str) -> JobState:
    """Return the state that a filter names."""
    return choose(state, _STATES, None, field)


def from_job(job: Job, *, stored: bool = True) -> job_pb2.Job:
    """Return the message of a job, with sensitive header values masked; one that is only validated has no id."""
    message = from_definition(job.definition)
    for header in message.target.headers:
        if header.sensitive:
            header.value = MASK
    if stored:
        message.job_id = job.job_id
        message.etag = job.etag
    message.org_id = job.org_id
    message.state = _STATES[job.state]
    message.state_reason = job.state_reason
    message.state_note = job.state_note
    message.revision = job.revision
    message.creator = job.creator
    message.consecutive_failures = job.consecutive_failures
    message.fingerprint = job.fingerprint
    message.tzdata_version = job.tzdata_version
    message.create_time.CopyFrom(to_timestamp(job.create_time))
    message.update_time.CopyFrom(to_timestamp(job.update_time))
    if job.next_fire_time is not None and job.state is JobState.ACTIVE:
        message.next_fire_time.CopyFrom(to_timestamp(job.next_fire_time))
    if job.delete_time is not None:
        message.delete_time.CopyFrom(to_timestamp(job.delete_time))
    if job.purge_time is not None:
        message.purge_time.CopyFrom(to_timestamp(job.purge_time))
    return message
