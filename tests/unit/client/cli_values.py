"""What the tests of the command share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from punctual.v1.job_pb2 import Job
from typer.testing import Result

from libs.client.schedules import daily
from tests.unit.client.fake_server import FakePunctual

Punctual = Callable[..., Result]
CREATE = ("jobs", "create", "--name", "n", "--url", "https://example.com", "--prompt", "p")
NINE = Timestamp(seconds=1_796_115_600)  # 2026-12-01T09:00:00Z
JOB = Job(job_id="01JOB", name="Mondays", project_id="ops", state=Job.STATE_ACTIVE, next_fire_time=NINE)
JOB.schedule.CopyFrom(daily("09:00", "Europe/Berlin"))


def sent(fake: FakePunctual, method: str) -> Any:
    [request] = fake.requests(method)
    return request
