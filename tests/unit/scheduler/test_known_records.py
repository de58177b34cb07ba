"""What is remembered of records is bounded; what a replica may recall of them is held by the contract tests."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.adapters.mongo import known_executions, known_jobs
from services.scheduler.adapters.mongo.codec import Codec
from services.scheduler.adapters.mongo.known_executions import KnownExecutions
from services.scheduler.adapters.mongo.known_jobs import KnownJobs
from services.scheduler.domain.execution import Callback, Execution
from services.scheduler.domain.job import (
    Body,
    Header,
    Job,
    JobDefinition,
    JobState,
    ResponseCheck,
    ResponsePolicy,
    StateChange,
    Target,
)
from tests.support.scheduler_values import NOW, a_definition, a_job, an_attempt, an_execution


def moving(job: Job) -> dict[str, Any]:
    return {
        "_id": job.job_id,
        "revision": job.revision,
        "update_time": job.update_time,
        "state_time": job.state_time,
        "state": job.state.value,
        "next_fire_time": job.next_fire_time,
        "next_due_time": job.next_due_time,
        "consecutive_failures": job.consecutive_failures,
        "duplicate_until": job.duplicate_until,
    }


def test_the_job_that_was_remembered_first_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_jobs, "MAX_JOBS", 2)
    known, jobs = KnownJobs(), [a_job(), a_job(), a_job()]
    for job in jobs:
        known.remember(job, None)
    assert known.among([job.job_id for job in jobs]) == [job.job_id for job in jobs[1:]]
    assert [known.recall(moving(job)) for job in jobs] == [None, *jobs[1:]]


@pytest.mark.parametrize(
    "target",
    [
        Target("https://api.example.com", "a" * 60),
        Target("https://api.example.com", "a" * 30, body=Body(template="b" * 30)),
    ],
)
def test_large_jobs_leave_room_for_few_others(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_jobs, "MAX_CHARACTERS", 100)
    known, small, large = KnownJobs(), a_job(), [a_job(a_definition(target=target)) for _ in range(3)]
    for job in (small, *large):
        known.remember(job, None)
    assert known.among([small.job_id, *(job.job_id for job in large)]) == [large[-1].job_id]
    known.remember(large[-1], None)
    assert known.recall(moving(large[-1])) == large[-1]


@pytest.mark.parametrize(
    "job",
    [
        a_job(a_definition(target=Target("https://api.example.com", "", (Header("X-A", "a" * 60),)))),
        a_job(a_definition(target=Target("https://api.example.com", "", (Header("X-A", "", sealed="a" * 60),)))),
        a_job(a_definition(response=ResponsePolicy(checks=(ResponseCheck("", "$.a", '"' + "a" * 60 + '"'),)))),
        a_job(a_definition(description="a" * 60)),
        a_job(a_definition(labels={"a": "a" * 60})),
        a_job(state_changes=(StateChange(NOW, JobState.PAUSED, "tester", note="a" * 60),)),
    ],
    ids=["header", "secret", "check", "description", "label", "state change"],
)
def test_whatever_makes_a_job_large_counts(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_jobs, "MAX_CHARACTERS", 60)
    known = KnownJobs()
    known.remember(job, None)
    assert known.among([job.job_id]) == []


def test_a_job_larger_than_all_room_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_jobs, "MAX_CHARACTERS", 10)
    known, job = KnownJobs(), a_job(a_definition(target=Target("https://api.example.com", "a" * 11)))
    known.remember(job, None)
    assert known.recall(moving(job)) is None


def test_the_execution_that_was_remembered_first_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_executions, "MAX_EXECUTIONS", 2)
    known, executions = KnownExecutions(), [an_execution(), an_execution(), an_execution()]
    known.remember(executions)
    ids = [execution.execution_id for execution in executions]
    assert known.among(ids) == ids[1:]
    known.forget(ids)
    assert known.among(ids) == []


@pytest.mark.parametrize(
    "execution",
    [
        an_execution(phase=None),
        an_execution(attempts=(an_attempt(),)),
        an_execution(callback=Callback("https://api.example.com", b"body", "job-1")),
    ],
)
def test_what_is_over_or_has_no_bound_is_not_remembered(execution: Execution) -> None:
    known = KnownExecutions()
    known.remember([execution])
    assert known.among([execution.execution_id]) == []


def test_parts_that_may_be_large_are_not_kept_for_the_next_document() -> None:
    codec = Codec()
    check = ResponseCheck(json_path_equals="$.a", json_value='"' + "a" * 60 + '"')
    for checks, kept in (((), True), ((check,), False)):
        document = codec.encode(a_definition(response=ResponsePolicy(checks=checks)))
        first, second = (codec.decode(document, JobDefinition).response for _ in range(2))
        assert first == second
        assert (first is second) is kept
