"""What opens secrets."""

from __future__ import annotations

from typing import Protocol

from services.scheduler.domain.job import Job


class SecretOpener(Protocol):
    """Opens what is encrypted at rest; for granted attempts, and to compare a submission with its first one."""

    def open(self, job: Job) -> Job | None:
        """Return the job with its secrets in clear; None when one of them cannot be read."""
        ...
