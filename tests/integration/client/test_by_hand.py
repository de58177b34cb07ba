"""What an operator does with grpcurl, by `buf curl`: list the services by reflection, call one, read an error."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from services.scheduler.app import PUBLIC_SERVICES
from tests.integration.client.conftest import RunningScheduler

BUF = Path(sys.executable).with_name("buf")
JOB = {
    "name": "by hand",
    "schedule": {"daily": {"time": "25:00"}},
    "target": {"url": "https://api.example.com/v1", "prompt": "Hello?"},
}


async def curl(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        BUF,
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        "-H",
        "x-punctual-org: by-hand",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def call(scheduler: RunningScheduler, method: str, request: dict[str, Any]) -> tuple[int, str, str]:
    """Without a schema: what the message is like comes from the server."""
    return await curl("-d", json.dumps(request), f"http://{scheduler.address}/punctual.v1.{method}")


async def test_reflection_lists_every_public_service(scheduler: RunningScheduler) -> None:
    code, output, errors = await curl("--list-services", f"http://{scheduler.address}")
    assert code == 0, errors
    assert {*PUBLIC_SERVICES, "grpc.health.v1.Health"} <= set(output.split())
    assert "internal" not in output


async def test_error_names_the_field_and_the_reason_and_a_corrected_call_succeeds(scheduler: RunningScheduler) -> None:
    code, _, errors = await call(scheduler, "JobService/CreateJob", {"job": JOB})
    assert code != 0
    told = json.loads(errors)
    assert told["code"] == "invalid_argument"
    assert "job.schedule.daily.time" in told["message"], "a person reads the field without decoding anything"
    details = {detail["type"]: b64decode(f"{detail['value']}==") for detail in told["details"]}
    (violation,) = BadRequest.FromString(details["google.rpc.BadRequest"]).field_violations
    assert violation.field == "job.schedule.daily.time"
    assert ErrorInfo.FromString(details["google.rpc.ErrorInfo"]).reason == violation.reason

    code, output, errors = await call(
        scheduler, "JobService/CreateJob", {"job": {**JOB, "schedule": {"daily": {"time": "23:00"}}}}
    )
    assert code == 0, errors
    assert json.loads(output)["job"]["state"] == "STATE_ACTIVE"
