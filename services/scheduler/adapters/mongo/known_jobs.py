"""Remembers decoded jobs, so that one that is asked for again costs a few small fields instead of its definition.

An execution's job is asked for by its begin and again by its report, and a recurring job at every fire. Whatever a
caller can see of a job changes with a new revision, and secrets come under a new key with new key ids. What the
dispatch path moves without a revision, the cursor and the failures in a row, is read each time; a job in another state
than the remembered one is read as a whole again. So a remembered job is never older than the read that asked for it,
as long as the scheduler alone writes jobs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from services.scheduler.domain.job import Job

MOVING_FIELDS = {
    "revision": 1,
    "state": 1,
    "next_fire_time": 1,
    "next_due_time": 1,
    "consecutive_failures": 1,
    "secret_key_ids": 1,
}
"""What tells whether a remembered job still stands, and what of it may have moved."""

MAX_JOBS = 5_000
"""More than the attempts that a few executors hold at a time, each between the two times that its job is asked for."""

MAX_TEXT = 8_192
"""Characters of a prompt or a template up to which a job is remembered, which bounds the memory; few have more."""


class KnownJobs:
    """The jobs that were asked for lately."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[Job, list[str] | None]] = {}
        """With the ids of the keys that its secrets are under, oldest first."""

    def among(self, job_ids: Collection[str]) -> list[str]:
        """Return which of the jobs are remembered."""
        return [job_id for job_id in job_ids if job_id in self._jobs]

    def remember(self, job: Job, document: Mapping[str, Any]) -> None:
        """Remember a job and the document that it was decoded from, unless it is large."""
        target = job.definition.target
        if len(target.prompt) > MAX_TEXT or (target.body is not None and len(target.body.template) > MAX_TEXT):
            return
        self._jobs.pop(job.job_id, None)
        if len(self._jobs) >= MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]
        self._jobs[job.job_id] = job, document.get("secret_key_ids")

    def recall(self, document: Mapping[str, Any]) -> Job | None:
        """Return the job as its `MOVING_FIELDS` say that it stands now; None when it has to be read as a whole."""
        job_id = document["_id"]
        known = self._jobs.get(job_id)
        if known is None:
            return None
        job, key_ids = known
        if (
            document["revision"] != job.revision
            or document["state"] != job.state
            or document.get("secret_key_ids") != key_ids
        ):
            del self._jobs[job_id]
            return None
        moved = document["next_fire_time"], document["next_due_time"], document["consecutive_failures"]
        if moved == (job.next_fire_time, job.next_due_time, job.consecutive_failures):
            return job
        job = replace(job, next_fire_time=moved[0], next_due_time=moved[1], consecutive_failures=moved[2])
        self._jobs[job_id] = job, key_ids
        return job
