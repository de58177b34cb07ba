"""A message of four MiB has room for millions of items: those that are too many are refused before they are read.

All calls of a replica share one event loop, so whoever could make it read them would hold up the work of all orgs.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from punctual.v1 import execution_service_pb2, job_pb2, org_service_pb2, schedule_pb2
from punctual.v1 import job_service_pb2 as pb

from libs.common.errors import InvalidArgumentError
from libs.common.testing.fake_clock import FakeClock
from services.scheduler.adapters.rpc import (
    definition_mapping,
    execution_service,
    job_requests,
    org_service,
    policy_mapping,
    schedule_mapping,
)
from services.scheduler.adapters.rpc.definition_mapping import from_definition, to_definition
from services.scheduler.domain.definition_rules import check_definition
from services.scheduler.testing.memory_api_key_store import MemoryApiKeyStore
from services.scheduler.usecases.api_keys import CreateApiKey, NewApiKey
from tests.support.scheduler_values import CALLER, NOW, a_definition

MANY = 100_000


class Counted:
    """A function that tells how often it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        return self._function(*arguments, **named)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, str], Counted]:
    def counted(module: ModuleType, name: str) -> Counted:
        counter = Counted(getattr(module, name))
        monkeypatch.setattr(module, name, counter)
        return counter

    return counted


def a_message() -> job_pb2.Job:
    return from_definition(a_definition())


def refused(job: job_pb2.Job) -> list[tuple[str, str]]:
    with pytest.raises(InvalidArgumentError) as raised:
        check_definition(to_definition(job), NOW)
    return [(violation.field, violation.reason) for violation in raised.value.violations]


def test_of_too_many_checks_no_path_is_read(count) -> None:
    job, read = a_message(), count(policy_mapping, "path_problem")
    for _ in range(17):
        job.response_policy.checks.add(json_path_exists="no path")
    assert refused(job) == [("response_policy.checks", "TOO_MANY_CHECKS")]
    assert read.calls == 0


def test_of_too_many_headers_no_name_is_read(count) -> None:
    job, read = a_message(), count(definition_mapping, "with_sensitivity")
    for _ in range(MANY):
        job.target.headers.add()
    assert refused(job) == [("target.headers", "TOO_MANY_HEADERS")]
    assert read.calls == 0


def test_of_too_many_labels_none_is_judged() -> None:
    job = a_message()
    for number in range(33):
        job.labels[f"NO KEY {number}"] = ""
    assert refused(job) == [("labels", "TOO_MANY_LABELS")]


def test_of_too_many_weekdays_few_are_read(count) -> None:
    job, read = a_message(), count(schedule_mapping, "_to_weekday")
    job.schedule.weekly.time = "09:00"
    job.schedule.weekly.days.extend([schedule_pb2.WEEKDAY_MON] * MANY)
    assert refused(job) == [("schedule.weekly.days", "INVALID_DAYS")]
    assert read.calls == 8


def test_too_many_success_codes_are_not_remembered() -> None:
    job = a_message()
    job.response_policy.success_codes.extend([200] * MANY)
    tracemalloc.start()
    try:
        for extra in range(10):
            job.response_policy.success_codes.extend([200] * extra)  # each time other ones
            assert refused(job) == [("response_policy.success_codes", "TOO_MANY_CODES")]
        gc.collect()  # each refusal is in a circle with its traceback
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 * MANY  # less than one of the ten


def test_states_that_a_filter_names_again_and_again_are_read_once(count) -> None:
    read = count(job_requests, "to_job_state")
    job_requests.to_job_filter(pb.ListJobsRequest(states=[job_pb2.Job.STATE_ACTIVE, job_pb2.Job.STATE_PAUSED] * MANY))
    assert read.calls == 2
    read = count(execution_service, "choose")
    request = execution_service_pb2.ListExecutionsRequest(states=[1, 2] * MANY, causes=[1] * MANY)  # type: ignore[list-item]
    execution_service._to_filter(request)
    assert read.calls == 3


async def test_of_too_many_unknown_scopes_some_are_named() -> None:
    create = CreateApiKey(MemoryApiKeyStore(), FakeClock(NOW))
    with pytest.raises(InvalidArgumentError) as raised:
        await create(CALLER, NewApiKey("a key", frozenset(f"scope-{number}" for number in range(MANY))))
    assert {violation.reason for violation in raised.value.violations} == {"UNKNOWN_SCOPE"}
    assert len(raised.value.violations) == 10


def test_of_too_many_settings_none_is_looked_up() -> None:
    request = org_service_pb2.UpdateOrgSettingsRequest()
    request.update_mask.paths.extend(f"setting_{number}" for number in range(MANY))
    with pytest.raises(InvalidArgumentError) as raised:
        org_service._fields(request)
    assert [(found.field, found.reason) for found in raised.value.violations] == [("update_mask", "TOO_MANY_PATHS")]
