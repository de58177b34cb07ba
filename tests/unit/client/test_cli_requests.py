"""What the command makes of its flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from punctual.v1.execution_pb2 import Execution
from punctual.v1.job_pb2 import Job

from tests.unit.client.cli_values import Punctual, sent
from tests.unit.client.fake_server import FakePunctual


@pytest.mark.parametrize(
    ("flags", "schedule"),
    [
        (["--at", "2026-12-01T09:00:00Z"], {"oneTime": {"instant": "2026-12-01T09:00:00Z"}}),
        (["--at", "2026-12-01T09:00:00+01:00"], {"oneTime": {"instant": "2026-12-01T08:00:00Z"}}),
        (
            ["--at", "2026-12-01T09:00", "--zone", "Europe/Berlin"],
            {"oneTime": {"local": {"date": "2026-12-01", "time": "09:00:00"}}, "timeZone": "Europe/Berlin"},
        ),
        (["--daily", "09:00"], {"daily": {"time": "09:00"}, "timeZone": "UTC"}),
        (
            ["--weekly", "mon,fri@09:00", "--zone", "Europe/Berlin"],
            {"weekly": {"days": ["WEEKDAY_MON", "WEEKDAY_FRI"], "time": "09:00"}, "timeZone": "Europe/Berlin"},
        ),
        (
            ["--monthly", "31@09:00", "--month-end", "last-day"],
            {"monthly": {"day": 31, "time": "09:00", "monthEnd": "MONTH_END_LAST_DAY"}, "timeZone": "UTC"},
        ),
        (
            ["--cron", "*/5 * * * *", "--end", "2027-01-01T00:00:00Z", "--jitter", "90s"],
            {
                "cron": {"expression": "*/5 * * * *"},
                "timeZone": "UTC",
                "endTime": "2027-01-01T00:00:00Z",
                "jitter": "90s",
            },
        ),
    ],
)
def test_schedule_flags(fake: FakePunctual, punctual: Punctual, flags: list[str], schedule: dict[str, Any]) -> None:
    result = punctual("jobs", "preview", *flags)
    assert result.exit_code == 0, result.output
    assert as_dict(sent(fake, "PreviewSchedule").schedule) == schedule


def as_dict(message: Any) -> Any:
    return json_format.MessageToDict(message)


def test_create_sends_what_the_flags_say(fake: FakePunctual, punctual: Punctual, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("s3cret\n")
    result = punctual(
        *("jobs", "create", "--name", "n", "--url", "https://example.com", "--prompt-file", "-"),
        *("--daily", "09:00", "--project", "ops", "--label", "team=a=b", "--label", "x=y"),
        *("-H", "Accept: text/plain", "--secret-header", f"X-Api-Key: @{secret}"),
        *("--preset", "anthropic-messages", "--model", "m", "--max-tokens", "9"),
        *("--max-attempts", "2", "--timeout", "5m", "--overlap", "queue-one", "--catch-up", "none"),
        *("--on-unknown", "fail", "--max-per-minute", "7", "--max-failures", "9", "--callback-url", "https://c"),
        *("--idempotency-key", "mine", "--allow-duplicate", "--validate-only"),
        stdin="Grüße",
    )
    assert result.exit_code == 0, result.output
    request = as_dict(sent(fake, "CreateJob"))
    assert request == {
        "idempotencyKey": "mine",
        "validateOnly": True,
        "allowDuplicate": True,
        "job": {
            "name": "n",
            "projectId": "ops",
            "labels": {"team": "a=b", "x": "y"},
            "schedule": {"daily": {"time": "09:00"}, "timeZone": "UTC"},
            "target": {
                "url": "https://example.com",
                "prompt": "Grüße",
                "headers": [
                    {"name": "Accept", "value": "text/plain"},
                    {"name": "X-Api-Key", "value": "s3cret", "sensitive": True},
                ],
                "body": {"preset": "BODY_PRESET_ANTHROPIC_MESSAGES", "model": "m", "maxTokens": 9},
            },
            "retryPolicy": {"maxAttempts": 2},
            "timeoutPolicy": {"total": "300s"},
            "overlapPolicy": "OVERLAP_POLICY_QUEUE_ONE",
            "catchUpPolicy": {"mode": "MODE_NONE"},
            "onUnknownOutcome": "ON_UNKNOWN_OUTCOME_FAIL",
            "rateLimitPolicy": {"maxRequestsPerMinute": 7},
            "maxConsecutiveFailures": 9,
            "callbackPolicy": {"url": "https://c"},
        },
    }


def test_update_sends_a_mask_of_what_was_given(fake: FakePunctual, punctual: Punctual) -> None:
    result = punctual("jobs", "update", "01JOB", "--prompt", "", "--cron", "0 9 * * *", "--etag", "3")
    assert result.exit_code == 0, result.output
    request = sent(fake, "UpdateJob")
    assert list(request.update_mask.paths) == ["schedule", "target.prompt"]
    assert (request.job.job_id, request.job.etag) == ("01JOB", "3")


def test_credentials_come_from_the_environment_or_a_file(
    fake: FakePunctual, punctual: Punctual, tmp_path: Path
) -> None:
    punctual("org", "show", PUNCTUAL_TOKEN="from-env")
    (tmp_path / "token").write_text("from-file\n")
    punctual("org", "show", "--token-file", str(tmp_path / "token"), PUNCTUAL_TOKEN="from-env")
    assert [call.metadata["authorization"] for call in fake.seen] == ["Bearer from-env", "Bearer from-file"]
    assert {call.metadata["x-punctual-org"] for call in fake.seen} == {"demo"}


def test_org_set_sends_a_mask(fake: FakePunctual, punctual: Punctual) -> None:
    assert punctual("org", "set", "--job-failed-callback-url", "", "--min-interval", "1m").exit_code == 0
    request = sent(fake, "UpdateOrgSettings")
    assert list(request.update_mask.paths) == ["job_failed_callback_url", "min_interval"]
    assert request.org_settings.min_interval.seconds == 60


def test_filters(fake: FakePunctual, punctual: Punctual) -> None:
    punctual("jobs", "list", "--state", "paused", "--state", "failed", "--label", "a=b", "--next-fire-before", "+1h")
    request = sent(fake, "ListJobs")
    assert list(request.states) == [Job.STATE_PAUSED, Job.STATE_FAILED]
    assert dict(request.labels) == {"a": "b"}
    assert request.HasField("next_fire_before")
    punctual("executions", "list", "--state", "timed-out", "--cause", "retry-request", "--since", "2h")
    request = sent(fake, "ListExecutions")
    assert (list(request.states), list(request.causes)) == (
        [Execution.STATE_TIMED_OUT],
        [Execution.CAUSE_RETRY_REQUEST],
    )
    assert request.HasField("fire_after")
    # As they are shown, too.
    punctual("executions", "list", "--state", "FAILED", "--cause", "CALLBACK")
    request = fake.requests("ListExecutions")[-1]
    assert (list(request.states), list(request.causes)) == ([Execution.STATE_FAILED], [Execution.CAUSE_CALLBACK])
    punctual("audit", "list", "--object-type", "job", "--method", "JobService.PauseJob")
    assert sent(fake, "ListAuditEvents").method == "JobService.PauseJob"


def test_other_commands_send_their_arguments(fake: FakePunctual, punctual: Punctual) -> None:
    for arguments in (
        ("jobs", "run", "01JOB", "--allow-inactive"),
        ("jobs", "explain", "01JOB", "--since", "2h", "--until", "+1h"),
        ("executions", "retry", "01EXE"),
        ("keys", "revoke", "k1"),
        ("secrets", "rotate", "--overlap", "1h"),
        ("secrets", "list"),
        ("secrets", "revoke", "s1"),
        ("targets", "list"),
        ("targets", "reset", "h:443"),
        ("targets", "limit", "h:443", "--per-minute", "60"),
    ):
        result = punctual(*arguments)
        assert result.exit_code == 0, result.output
    assert sent(fake, "RunJob").allow_inactive
    assert sent(fake, "ExplainJob").HasField("end_time")
    assert sent(fake, "RevokeApiKey").key_id == "k1"
    assert sent(fake, "RotateSigningSecret").overlap.seconds == 3600
    assert sent(fake, "SetTargetHostLimit").max_requests_per_minute == 60
