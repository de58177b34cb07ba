"""The field mask of UpdateJob: what each kind of path takes over, and what it refuses by name."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from punctual.v1 import job_pb2, schedule_pb2
from punctual.v1.job_service_pb2 import UpdateJobRequest

from libs.common.errors import InvalidArgumentError
from services.scheduler.adapters.rpc.definition_mapping import from_definition
from services.scheduler.adapters.rpc.update_mask import WRITABLE_FIELDS, to_edit
from services.scheduler.domain.job import (
    CatchUpPolicy,
    Header,
    JobDefinition,
    RetryPolicy,
    Target,
    TimeoutPolicy,
)
from services.scheduler.domain.request_headers import MASK
from services.scheduler.domain.schedule import Cron, Daily, OneTimeAt, Schedule

SECOND = timedelta(seconds=1)
STORED = JobDefinition(
    name="stored",
    description="as it was",
    labels={"team": "a", "tier": "gold"},
    schedule=Schedule(Cron("0 9 * * *"), "Europe/Berlin", jitter=10 * SECOND),
    target=Target(
        "https://api.example.com/v1",
        "Say hello.",
        (Header("X-Plain", "1"), Header("X-Api-Key", "", sensitive=True, sealed="sealed-key")),
    ),
    retry=RetryPolicy(max_attempts=7, initial_backoff=5 * SECOND),
    timeout=TimeoutPolicy(total=60 * SECOND),
    catch_up=CatchUpPolicy(max_fires=9),
    max_consecutive_failures=9,
)


def edited(job: job_pb2.Job, *paths: str) -> JobDefinition:
    return to_edit(UpdateJobRequest(job=job, update_mask=FieldMask(paths=paths)))(STORED)


def changes(definition: JobDefinition) -> dict[str, Any]:
    """Return what differs from the stored definition, by field."""
    fields = JobDefinition.__dataclass_fields__
    return {name: getattr(definition, name) for name in fields if getattr(definition, name) != getattr(STORED, name)}


def test_an_update_of_nothing_changes_nothing() -> None:
    assert changes(edited(job_pb2.Job())) == {}


def test_what_a_reply_shows_can_be_sent_back() -> None:
    shown = from_definition(STORED)
    shown.target.headers[1].value = MASK
    shown.job_id, shown.state, shown.fingerprint = "x", job_pb2.Job.STATE_ACTIVE, "f"
    assert changes(edited(shown)) == {}


@pytest.mark.parametrize(
    ("sent", "paths", "expected"),
    [
        ({"name": "new"}, ["name"], {"name": "new"}),
        ({"name": "new", "description": "also sent"}, ["name"], {"name": "new"}),
        ({"labels": {"team": "b"}}, ["labels"], {"labels": {"team": "b"}}),
        ({}, ["labels"], {"labels": {}}),
        ({}, ["description"], {"description": ""}),
        ({}, ["max_consecutive_failures"], {"max_consecutive_failures": 5}),
        ({"retry_policy": {"max_attempts": 2}}, ["retry_policy.max_attempts"], {"retry": RetryPolicy(2, 5 * SECOND)}),
        ({"retry_policy": {"max_attempts": 2}}, ["retry_policy"], {"retry": RetryPolicy(2)}),
        ({}, ["retry_policy"], {"retry": RetryPolicy()}),
        ({}, ["retry_policy.initial_backoff"], {"retry": RetryPolicy(7)}),
        (
            {"retry_policy": {"initial_backoff": Duration(seconds=1)}},
            ["retry_policy.initial_backoff"],
            {"retry": RetryPolicy(7, SECOND)},
        ),
        (
            {"schedule": {"cron": {"expression": "0 10 * * *"}}},
            ["schedule.cron.expression"],
            {"schedule": Schedule(Cron("0 10 * * *"), "Europe/Berlin", jitter=10 * SECOND)},
        ),
        (
            {"schedule": {"daily": {"time": "08:00"}}},
            ["schedule.daily"],
            {"schedule": Schedule(Daily(time(8)), "Europe/Berlin", jitter=10 * SECOND)},
        ),
        (
            {"schedule": {"daily": {"time": "08:00"}}},
            ["schedule"],
            {"schedule": Schedule(Daily(time(8)), "UTC")},
        ),
        (
            {},
            ["schedule.jitter"],
            {"schedule": Schedule(Cron("0 9 * * *"), "Europe/Berlin")},
        ),
        (
            {"target": {"prompt": "Say more."}},
            ["target.prompt"],
            {"target": Target(STORED.target.url, "Say more.", STORED.target.headers)},
        ),
        ({"catch_up_policy": {"mode": job_pb2.CatchUpPolicy.MODE_LATEST}}, ["catch_up_policy.mode"], {}),
        (
            {"name": "new", "retry_policy": {"max_attempts": 2}},
            ["name", "retry_policy.max_attempts"],
            {"name": "new", "retry": RetryPolicy(2, 5 * SECOND)},
        ),
    ],
)
def test_a_path_takes_over_what_it_names(sent: dict[str, Any], paths: list[str], expected: dict[str, Any]) -> None:
    assert changes(edited(job_pb2.Job(**sent), *paths)) == expected


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"name": "new"}, {"name": "new"}),
        ({"retry_policy": {"max_attempts": 2}}, {"retry": RetryPolicy(2, 5 * SECOND)}),
        (
            {"schedule": {"one_time": {"instant": {"seconds": 4_000_000_000}}}},
            {
                "schedule": Schedule(
                    OneTimeAt(datetime.fromisoformat("2096-10-02T07:06:40+00:00")),
                    "Europe/Berlin",
                    jitter=10 * SECOND,
                )
            },
        ),
        ({"state": job_pb2.Job.STATE_PAUSED, "creator": "me", "revision": 9}, {}),
        ({"project_id": "default"}, {}),
    ],
)
def test_without_a_mask_the_populated_fields_are_taken(sent: dict[str, Any], expected: dict[str, Any]) -> None:
    assert changes(edited(job_pb2.Job(**sent))) == expected


def test_a_star_replaces_all_that_a_caller_may_write() -> None:
    sent = job_pb2.Job(
        name="only",
        schedule=schedule_pb2.Schedule(daily=schedule_pb2.DailyRule(time="08:00")),
        target=job_pb2.Target(url="https://b.example.com", prompt="Hi."),
    )
    assert edited(sent, "*") == JobDefinition(
        "only", Schedule(Daily(time(8))), Target("https://b.example.com", "Hi."), project_id=STORED.project_id
    )


def test_a_total_timeout_takes_along_what_followed_from_it() -> None:
    sent = job_pb2.Job(timeout_policy=job_pb2.TimeoutPolicy(total=Duration(seconds=5)))
    assert edited(sent).timeout == TimeoutPolicy(total=5 * SECOND, connect=5 * SECOND)


@pytest.mark.parametrize(
    ("paths", "reasons"),
    [
        (["nonsense"], ["UNKNOWN_PATH"]),
        (["schedule.cron.nonsense"], ["UNKNOWN_PATH"]),
        (["labels.team"], ["UNKNOWN_PATH"]),
        (["target.headers.value"], ["UNKNOWN_PATH"]),
        (["name.first"], ["UNKNOWN_PATH"]),
        (["schedule.start_time.seconds"], ["UNKNOWN_PATH"]),
        ([""], ["UNKNOWN_PATH"]),
        (["state"], ["OUTPUT_ONLY_FIELD"]),
        (["etag"], ["OUTPUT_ONLY_FIELD"]),
        (["next_fire_time"], ["OUTPUT_ONLY_FIELD"]),
        (["project_id"], ["IMMUTABLE_FIELD"]),
        (["*", "name"], ["INVALID_PATH"]),
        (["name", "state", "nonsense"], ["OUTPUT_ONLY_FIELD", "UNKNOWN_PATH"]),
        (["name"] * 101, ["TOO_MANY_PATHS"]),
    ],
)
def test_paths_that_cannot_be_written_are_named(paths: list[str], reasons: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        edited(job_pb2.Job(name="new"), *paths)
    assert [violation.reason for violation in raised.value.violations] == reasons
    assert {violation.field for violation in raised.value.violations} == {"update_mask"}
    if len(reasons) > 1:
        assert [violation.description.split("'")[1] for violation in raised.value.violations] == paths[1:]


def test_every_field_of_a_job_is_writable_or_refused() -> None:
    for field in job_pb2.Job.DESCRIPTOR.fields:
        if field.name in WRITABLE_FIELDS:
            to_edit(UpdateJobRequest(update_mask=FieldMask(paths=[field.name])))
        else:
            with pytest.raises(InvalidArgumentError):
                to_edit(UpdateJobRequest(update_mask=FieldMask(paths=[field.name])))


def test_the_project_cannot_be_changed() -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        edited(job_pb2.Job(project_id="other"))
    assert [(v.field, v.reason) for v in raised.value.violations] == [("project_id", "IMMUTABLE_FIELD")]


def headers(*sent: tuple[str, str, bool]) -> tuple[Header, ...]:
    target = job_pb2.Target()
    for name, value, sensitive in sent:
        target.headers.add(name=name, value=value, sensitive=sensitive)
    return edited(job_pb2.Job(target=target), "target.headers").target.headers


def test_a_mask_that_comes_back_keeps_the_secret() -> None:
    assert headers(("X-Api-Key", MASK, True)) == (STORED.target.headers[1],)
    assert headers(("x-api-key", MASK, False))[0].sealed == "sealed-key"


def test_what_is_kept_by_its_mask_stays_secret() -> None:
    assert headers(("x-api-key", MASK, False))[0].sensitive


def test_a_new_value_replaces_the_secret() -> None:
    assert headers(("X-Api-Key", "new", True)) == (Header("X-Api-Key", "new", sensitive=True),)


def test_the_mask_of_what_is_no_stored_secret_is_a_plain_value() -> None:
    assert headers(("X-Plain", MASK, False)) == (Header("X-Plain", MASK),)
    assert headers(("X-Other-Token", MASK, True)) == (Header("X-Other-Token", MASK, sensitive=True),)
