"""What the command prints: tables for people, JSON lines and ids for programs."""

from __future__ import annotations

import json
from pathlib import Path

from punctual.v1 import job_service_pb2 as pb
from punctual.v1.api_key_pb2 import ApiKey
from punctual.v1.api_key_service_pb2 import CreateApiKeyResponse
from punctual.v1.execution_pb2 import Attempt, Execution, Response
from punctual.v1.execution_service_pb2 import (
    DownloadResponseResponse,
    WatchExecutionsResponse,
)
from punctual.v1.job_pb2 import Job
from punctual.v1.schedule_pb2 import Fire

from libs.common.errors import (
    FailedPreconditionError,
)
from tests.unit.client.cli_values import CREATE, JOB, NINE, Punctual, sent
from tests.unit.client.fake_server import FakePunctual


def test_table_for_people(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("ListJobs", pb.ListJobsResponse(jobs=[JOB]))
    result = punctual("jobs", "list")
    [head, row] = result.stdout.splitlines()
    assert head.split() == ["JOB", "STATE", "NEXT", "FIRE", "SCHEDULE", "PROJECT", "NAME"]
    assert row.split() == [
        "01JOB",
        "ACTIVE",
        "2026-12-01T09:00:00Z",
        "daily",
        "09:00",
        "Europe/Berlin",
        "ops",
        "Mondays",
    ]


def test_json_is_one_object_a_line(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("ListJobs", pb.ListJobsResponse(jobs=[JOB, JOB]))
    lines = punctual("jobs", "list", "--output", "json").stdout.splitlines()
    assert [json.loads(line)["nextFireTime"] for line in lines] == ["2026-12-01T09:00:00Z"] * 2


def test_ids_for_scripts(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("CreateJob", pb.CreateJobResponse(job=JOB))
    assert punctual(*CREATE, "--daily", "09:00", "-o", "id").stdout == "01JOB\n"


def test_card_shows_the_next_fires(fake: FakePunctual, punctual: Punctual) -> None:
    fire = Fire(fire_time=NINE, local_time="2026-12-01T10:00:00+01:00", adjustments=[1])
    fake.script("CreateJob", pb.CreateJobResponse(job=JOB, next_fires=[fire], replayed=True))
    output = punctual(*CREATE, "--daily", "09:00").stdout
    assert "2026-12-01T09:00:00Z  2026-12-01T10:00:00+01:00  GAP" in output
    assert "existed already" in output


def test_execution_names_what_it_repeats_or_tells_of(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("GetExecution", Execution(execution_id="02EXE", retried_execution_id="01EXE"))
    fake.script("GetExecution", Execution(execution_id="03EXE", told_execution_id="02EXE"))
    assert ["repeats", "01EXE"] in [line.split() for line in punctual("executions", "get", "02EXE").stdout.splitlines()]
    shown = punctual("executions", "get", "03EXE").stdout
    assert ["tells", "of", "02EXE"] in [line.split() for line in shown.splitlines()]


def test_limit_says_that_there_is_more(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("ListJobs", pb.ListJobsResponse(jobs=[JOB] * 3, next_page_token="2"))
    result = punctual("jobs", "list", "--limit", "2", "-o", "id")
    assert result.stdout.splitlines() == ["01JOB"] * 2
    assert "more than 2" in result.stderr
    assert sent(fake, "ListJobs").page_size == 3


def test_other_peoples_text_cannot_command_the_terminal(fake: FakePunctual, punctual: Punctual) -> None:
    evil = Job(job_id="01JOB", name="\x1b]0;owned\x07[bold]x\x9b31m")
    fake.script("ListJobs", pb.ListJobsResponse(jobs=[evil]))
    assert "\\x1b]0;owned\\x07[bold]x\\x9b31m" in punctual("jobs", "list").stdout
    fake.script("GetJob", FailedPreconditionError("X", "\x1b[2Jgone"))
    assert "\x1b" not in punctual("jobs", "get", "01JOB").output


def test_execution_card_shows_attempts(fake: FakePunctual, punctual: Punctual) -> None:
    attempt = Attempt(number=1, outcome=Attempt.OUTCOME_TIMED_OUT, error_reason="TIMEOUT", decision="RETRY")
    execution = Execution(execution_id="01EXE", state=Execution.STATE_READY, attempts=[attempt])
    execution.lag.nanos = 3_000_000
    fake.script("GetExecution", execution)
    output = punctual("executions", "get", "01EXE").stdout
    assert "1  -  TIMED_OUT  TIMEOUT  RETRY" in output
    assert "3 ms" in output


def test_watch_prints_changes_as_they_come(fake: FakePunctual, punctual: Punctual) -> None:
    changes = [
        WatchExecutionsResponse(execution=Execution(execution_id=f"e{n}", state=Execution.STATE_RUNNING))
        for n in (1, 2)
    ]
    fake.script("WatchExecutions", changes, changes)
    assert [line.split()[0] for line in punctual("executions", "watch", "--count", "2").stdout.splitlines()] == [
        "e1",
        "e2",
    ]
    output = punctual("executions", "watch", "--count", "1", "-o", "json").stdout
    assert json.loads(output)["execution"]["state"] == "STATE_RUNNING"


def test_response_is_written_byte_for_byte(fake: FakePunctual, punctual: Punctual, tmp_path: Path) -> None:
    answer = [
        DownloadResponseResponse(response=Response(status_code=200, stored_size_bytes=3), chunk=b"\xff\x00"),
        DownloadResponseResponse(chunk=b"\n"),
    ]
    fake.script("DownloadResponse", answer, answer)
    assert punctual("executions", "response", "01EXE").stdout_bytes == b"\xff\x00\n"
    target = tmp_path / "answer"
    assert "HTTP 200" in punctual("executions", "response", "01EXE", "--to", str(target)).stdout
    assert target.read_bytes() == b"\xff\x00\n"


def test_secret_is_shown_with_a_warning(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("CreateApiKey", CreateApiKeyResponse(api_key=ApiKey(key_id="k1", scopes=["jobs.read"]), secret="k1.s"))
    result = punctual("keys", "create", "--name", "ci", "--scope", "jobs.read", "--expires", "+90d")
    assert "k1.s" in result.stdout
    assert "never again" in result.stderr
