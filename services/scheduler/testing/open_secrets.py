"""A secret opener for stores that keep secrets in clear."""

from __future__ import annotations

from services.scheduler.domain.job import Job


class OpenSecrets:
    """Implements `SecretOpener` where nothing is sealed; a job named in `unreadable` does not open."""

    def __init__(self) -> None:
        self.unreadable: set[str] = set()

    def open(self, job: Job) -> Job | None:
        """Return the job as it is."""
        return None if job.job_id in self.unreadable else job
