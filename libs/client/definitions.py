"""The constructor for jobs: what nearly every job says, as arguments; all else is set on the message it returns."""

from __future__ import annotations

from collections.abc import Mapping

from punctual.v1.job_pb2 import Header, Job, Target
from punctual.v1.schedule_pb2 import Schedule


def new_job(
    name: str,
    *,
    prompt: str,
    url: str,
    schedule: Schedule,
    headers: Mapping[str, str] | None = None,
    secret_headers: Mapping[str, str] | None = None,
    project_id: str = "",
    labels: Mapping[str, str] | None = None,
) -> Job:
    """Return a job to create. Values of `secret_headers` are encrypted at rest and masked in every answer."""
    sent = [
        *(Header(name=key, value=value) for key, value in (headers or {}).items()),
        *(Header(name=key, value=value, sensitive=True) for key, value in (secret_headers or {}).items()),
    ]
    return Job(
        name=name,
        project_id=project_id,
        labels=labels,
        schedule=schedule,
        target=Target(url=url, headers=sent, prompt=prompt),
    )
