"""Remembers decoded jobs, so that one that is asked for again costs a few small fields instead of its definition.

An execution's job is asked for by its begin and again by its report, a recurring job at every fire, and many a one-time
job soon after it was created. Whatever a caller can see of a job changes with a new revision, and secrets come under a
new key with new key ids. What the dispatch path moves without a revision, the cursor and the failures in a row, is read
each time; a job that is in another state than the remembered one, or gave its fingerprint back, is read as a whole
again. So a remembered job is never older than the read that asked for it, as long as the scheduler alone writes jobs.

A revision does not name a change by itself: one that was read from a primary which lost it in a failover is followed by
another of the same number. The times of the last change and of the state tell them apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from services.scheduler.domain.job import Job

MOVING_FIELDS = {
    "revision": 1,
    "update_time": 1,
    "state": 1,
    "state_time": 1,
    "next_fire_time": 1,
    "next_due_time": 1,
    "consecutive_failures": 1,
    "duplicate_until": 1,
    "secret_key_ids": 1,
}
"""What tells whether a remembered job still stands, and what of it may have moved."""

_ALWAYS_THERE = MOVING_FIELDS.keys() - {"state_time", "duplicate_until", "secret_key_ids"}
"""Without one of these a document cannot be read, which the whole read of it tells."""

MAX_JOBS = 20_000
"""Twice the attempts that a few executors hold at a time and those on their way to them; a job takes about 2 KB."""

MAX_CHARACTERS = 20_000_000
"""Of the texts of all remembered jobs together, which bounds the memory where they are large."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A remembered job, the ids of the keys that its secrets are under, and the characters of its texts."""

    job: Job
    key_ids: list[str] | None
    size: int


class KnownJobs:
    """The jobs that were stored or asked for lately."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Known] = {}
        """The oldest first."""
        self._size = 0

    def among(self, job_ids: Collection[str]) -> list[str]:
        """Return which of the jobs are remembered."""
        return [job_id for job_id in job_ids if job_id in self._jobs]

    def get(self, job_ids: Collection[str]) -> dict[str, Job]:
        """Return those that are remembered, as they stood then."""
        return {job_id: known.job for job_id in job_ids if (known := self._jobs.get(job_id)) is not None}

    def remember(self, job: Job, key_ids: list[str] | None) -> None:
        """Remember a job as it is stored, with its secrets sealed under these keys."""
        self._forget(job.job_id)
        size = _characters(job)
        self._jobs[job.job_id] = _Known(job, key_ids, size)
        self._size += size
        while len(self._jobs) > MAX_JOBS or self._size > MAX_CHARACTERS:
            self._forget(next(iter(self._jobs)))

    def _forget(self, job_id: str) -> None:
        known = self._jobs.pop(job_id, None)
        if known is not None:
            self._size -= known.size

    def recall(self, document: Mapping[str, Any]) -> Job | None:
        """Return the job as its `MOVING_FIELDS` say that it stands now; None when it has to be read as a whole."""
        job_id = document["_id"]
        known = self._jobs.get(job_id)
        if known is None:
            return None
        job = known.job
        if (
            not document.keys() >= _ALWAYS_THERE
            or document["revision"] != job.revision
            or document["update_time"] != job.update_time
            or document["state"] != job.state
            or document.get("state_time") != job.state_time
            or document.get("duplicate_until") != job.duplicate_until
            or document.get("secret_key_ids") != known.key_ids
        ):
            self._forget(job_id)
            return None
        moved = document["next_fire_time"], document["next_due_time"], document["consecutive_failures"]
        if moved == (job.next_fire_time, job.next_due_time, job.consecutive_failures):
            return job
        job = replace(job, next_fire_time=moved[0], next_due_time=moved[1], consecutive_failures=moved[2])
        self._jobs[job_id] = replace(known, job=job)
        return job


def _characters(job: Job) -> int:
    """Return the characters of the texts that may be long."""
    definition = job.definition
    target = definition.target
    size = len(definition.description) + len(target.url) + len(target.prompt) + len(definition.callback.url)
    if target.body is not None:
        size += len(target.body.template)
    for header in target.headers:
        size += len(header.name) + len(header.value) + len(header.sealed)
    for check in definition.response.checks:
        size += len(check.json_path_exists) + len(check.json_path_equals) + len(check.json_value)
    for key, value in definition.labels.items():
        size += len(key) + len(value)
    for change in job.state_changes:
        size += len(change.actor) + len(change.note)
    return size
