"""How the command ends: exit codes, and errors as lines instead of tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from punctual.v1.execution_pb2 import Execution
from punctual.v1.execution_service_pb2 import (
    ListExecutionsResponse,
)

from libs.common.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.unit.client.cli_values import CREATE, NINE, Punctual
from tests.unit.client.fake_server import FakePunctual


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (FailedPreconditionError("JOB_COMPLETED", "it is over"), 1, "FAILED_PRECONDITION JOB_COMPLETED: it is over"),
        (NotFoundError("job", "x"), 3, "NOT_FOUND JOB_NOT_FOUND: job 'x' does not exist"),
        (UnavailableError("NO_PRIMARY", "later"), 4, "UNAVAILABLE NO_PRIMARY: later"),
        (UnauthenticatedError("NO_CREDENTIAL", "who?"), 5, "UNAUTHENTICATED NO_CREDENTIAL: who?"),
        (PermissionDeniedError("MISSING_SCOPE", "no"), 5, "PERMISSION_DENIED MISSING_SCOPE: no"),
        (ResourceExhaustedError("RATE", "slow", retry_after_seconds=60), 1, "RESOURCE_EXHAUSTED RATE: slow"),
    ],
)
def test_exit_codes(fake: FakePunctual, punctual: Punctual, error: Exception, exit_code: int, line: str) -> None:
    fake.script("RunJob", *[error] * 20)
    result = punctual("jobs", "run", "x", "--deadline", "2")
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr.splitlines()[0] == line
    assert fake.seen[0].metadata["x-request-id"] in result.stderr


def test_each_refused_field_has_its_line(fake: FakePunctual, punctual: Punctual) -> None:
    fields = [
        FieldViolation("job.schedule.time_zone", "UNKNOWN_ZONE", "is not a zone"),
        FieldViolation("job.name", "REQUIRED", "is required"),
    ]
    fake.script("CreateJob", *[InvalidArgumentError(fields)] * 2)
    assert punctual(*CREATE, "--daily", "09:00").stderr.splitlines()[:2] == [
        "INVALID_ARGUMENT job.schedule.time_zone: is not a zone (UNKNOWN_ZONE)",
        "INVALID_ARGUMENT job.name: is required (REQUIRED)",
    ]
    failure = json.loads(punctual(*CREATE, "--daily", "09:00", "-o", "json").stderr)
    assert (failure["code"], [item["field"] for item in failure["fields"]]) == (
        "INVALID_ARGUMENT",
        ["job.schedule.time_zone", "job.name"],
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (*CREATE, "--daily", "09:00", "--cron", "* * * * *"),
        (*CREATE, "--zone", "Europe/Berlin"),
        (*CREATE, "--at", "tomorrow"),
        (*CREATE, "--at", "2026-12-01T09:00:00Z", "--zone", "UTC"),
        (*CREATE, "--weekly", "mon"),
        (*CREATE, "--weekly", "funday@09:00"),
        (*CREATE, "--monthly", "last@09:00"),
        (*CREATE, "--timeout", "5 minutes"),
        (*CREATE, "--timeout", "99999999999d"),
        (*CREATE, "--at", "9999-12-31T23:59:59-10:00"),
        (*CREATE, "--daily", "09:00", "--timeout", "99999999999999999999d"),
        (*CREATE, "--daily", "09:00", "--max-attempts", "99999999999999999999"),
        (*CREATE, "--daily", "09:00", "--max-failures", "-99999999999999999999"),
        (*CREATE, "--at", "0001-01-01T00:00:00+14:00"),
        (*CREATE, "--daily", "09:00", "--end", "+99999999d"),
        (*CREATE, "--label", "team"),
        (*CREATE, "-H", "no colon"),
        (*CREATE, "--secret-header", "X-Api-Key: @/nowhere"),
        (*CREATE, "--prompt-file", "/nowhere"),
        (*CREATE, "--daily", "09:00", "--model", "m"),
        ("jobs", "update", "01JOB", "--name", "n", "--max-tokens", "5"),
        (*CREATE, "--batch", "-"),
        ("jobs", "create", "--batch", "/nowhere"),
        ("jobs", "preview"),
        ("jobs", "update", "01JOB"),
        ("jobs", "pause"),
        ("jobs", "pause", "--all"),
        ("jobs", "pause", "01JOB", "--all", "--project", "p"),
        ("jobs", "pause", "01JOB", "--project", "p"),
        ("jobs", "apply", "-f", "-"),
        ("jobs", "list", "--next-fire-before", "2026-12-01T09:00"),
        ("jobs", "list", "--next-fire-before", "+99999999999d"),
        ("jobs", "list", "--next-fire-after", "9999999d"),
        ("jobs", "list", "--next-fire-after", "0001-01-01T00:00:00+14:00"),
        ("jobs", "list", "--state", "asleep"),
        ("targets", "limit", "a:1", "--per-minute", "99999999999999999999"),
        ("org", "set"),
        ("org", "set", "--max-jobs", "99999999999999999999"),
        ("org", "show", "--insecure", "--ca-file", "/nowhere"),
        ("org", "show", "--ca-file", "/nowhere"),
        ("org", "show", "--org", "Köln"),
        ("jobs", "get", "caf\udce9"),
        (*CREATE, "--description", "caf\udce9"),
    ],
)
def test_wrong_usage_calls_nothing(fake: FakePunctual, punctual: Punctual, arguments: tuple[str, ...]) -> None:
    result = punctual(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert fake.seen == []


def test_token_is_not_sent_in_plaintext_to_other_machines(punctual: Punctual) -> None:
    result = punctual("org", "show", "--deadline", "0.1", PUNCTUAL_ADDRESS="192.0.2.1:7400", PUNCTUAL_TOKEN="t")
    assert result.exit_code == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("output", ["table", "json"])
def test_an_answer_that_cannot_be_written_is_told_in_a_line(fake: FakePunctual, output: str) -> None:
    command = [sys.executable, "-m", "libs.client.cli.app", "org", "show", "--org", "demo", "-o", output]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(
            [*command, "--address", fake.address],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (1, "cannot write the answer: No space left on device\n")


def test_help_names_the_exit_codes(punctual: Punctual) -> None:
    assert "Exit codes" in punctual("--help").stdout
    assert "completion" in punctual("--help").stdout


def test_executions_list_table(fake: FakePunctual, punctual: Punctual) -> None:
    execution = Execution(
        execution_id="01EXE", job_id="01JOB", state=Execution.STATE_SKIPPED, state_reason="OVERLAP", fire_time=NINE
    )
    fake.script("ListExecutions", ListExecutionsResponse(executions=[execution]))
    assert "SKIPPED  OVERLAP" in punctual("executions", "list").stdout


def test_the_version_is_shown_without_a_server(punctual: Punctual) -> None:
    result = punctual("--version")
    assert result.exit_code == 0
    assert result.stdout == f"punctual {version('punctual')}\n"
