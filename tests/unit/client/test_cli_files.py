"""The command on many jobs at once: bulk changes, batches, `apply`."""

from __future__ import annotations

import json
from pathlib import Path

from punctual.v1 import job_service_pb2 as pb
from punctual.v1.job_pb2 import Job

from libs.common.errors import (
    NotFoundError,
)
from tests.unit.client.cli_values import JOB, Punctual, sent
from tests.unit.client.fake_server import FakePunctual


def test_bulk_pause_goes_on_to_the_end(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("BulkPauseJobs", pb.BulkPauseJobsResponse(changed_count=1000, more=True))
    fake.script("BulkPauseJobs", pb.BulkPauseJobsResponse(changed_count=24))
    result = punctual("jobs", "pause", "--all", "--label", "team=ops", "--project", "p", "--note", "why", "-o", "json")
    assert json.loads(result.stdout) == {"changedCount": 1024}
    request = fake.requests("BulkPauseJobs")[0]
    assert (request.project_id, dict(request.labels), request.note) == ("p", {"team": "ops"}, "why")


def test_bulk_resume_counts(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("BulkResumeJobs", pb.BulkResumeJobsResponse(changed_count=5, unresumable_count=2))
    assert json.loads(punctual("jobs", "resume", "--all", "--project", "p", "-o", "json").stdout) == {
        "changedCount": 5,
        "unresumableCount": 2,
    }


def test_one_failure_does_not_keep_others_from_their_turn(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("PauseJob", JOB, NotFoundError("job", "x"), JOB)
    result = punctual("jobs", "pause", "a", "x", "b", "-o", "id")
    assert result.stdout.splitlines() == ["01JOB", "01JOB"]
    assert "NOT_FOUND JOB_NOT_FOUND" in result.stderr
    assert result.exit_code == 3


def test_batch_creates_line_by_line(fake: FakePunctual, punctual: Punctual, tmp_path: Path) -> None:
    refused = pb.BatchCreateJobsResult(
        error=pb.ItemError(code=3, reason="REQUIRED", field="job.name", message="is required")
    )
    fake.script("BatchCreateJobs", pb.BatchCreateJobsResponse(results=[pb.BatchCreateJobsResult(job=JOB), refused]))
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"name": "a", "projectId": "own"}\n\n{"target": {"prompt": "p"}}\n')
    result = punctual("jobs", "create", "--batch", str(path), "--idempotency-key", "import", "--project", "ops")
    assert result.exit_code == 1
    assert "REQUIRED job.name is required" in result.stdout
    requests = sent(fake, "BatchCreateJobs").requests
    assert [(item.job.project_id, item.idempotency_key) for item in requests] == [
        ("own", "import-1"),
        ("ops", "import-3"),
    ]


def test_batch_that_does_not_parse_calls_nothing(fake: FakePunctual, punctual: Punctual) -> None:
    result = punctual("jobs", "create", "--batch", "-", stdin='{"name": "a"}\n{"nam": "b"}\n')
    assert result.exit_code == 2
    assert "line 2" in result.stderr
    assert fake.seen == []


def test_apply_creates_what_is_not_there(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("ListJobs", pb.ListJobsResponse(jobs=[Job(job_id="other", name="Mondays and more")]))
    fake.script("CreateJob", pb.CreateJobResponse(job=JOB))
    result = punctual("jobs", "apply", "-f", "-", "-o", "id", stdin='{"name": "Mondays"}')
    assert result.stdout == "01JOB\n"
    assert sent(fake, "ListJobs").project_id == "default"


def test_apply_replaces_what_is_there(fake: FakePunctual, punctual: Punctual) -> None:
    found = Job(job_id="01JOB", name="Mondays", etag="7")
    fake.script("ListJobs", pb.ListJobsResponse(jobs=[found]))
    fake.script("UpdateJob", *[pb.UpdateJobResponse(job=JOB)] * 2)
    result = punctual("jobs", "apply", "-f", "-", stdin='[{"name": "Mondays"}, {"jobId": "01X", "name": "n"}]')
    assert result.exit_code == 0, result.output
    first, second = fake.requests("UpdateJob")
    assert (first.job.job_id, first.job.etag, list(first.update_mask.paths)) == ("01JOB", "7", ["*"])
    assert (second.job.job_id, second.job.etag) == ("01X", "")


def test_apply_refuses_to_guess(fake: FakePunctual, punctual: Punctual) -> None:
    fake.script("ListJobs", pb.ListJobsResponse(jobs=[JOB, JOB]))
    result = punctual("jobs", "apply", "-f", "-", stdin='{"name": "Mondays"}')
    assert result.exit_code == 2
    assert "2 jobs are named" in result.stderr
