"""What a job's definition may not hold: each bad input, the field that is blamed, and the reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import time, timedelta
from typing import Any

import pytest

from libs.common.errors import InvalidArgumentError
from services.scheduler.domain.definition_rules import check_definition
from services.scheduler.domain.job import (
    Body,
    BodyPreset,
    CallbackPolicy,
    CatchUpPolicy,
    Header,
    JobDefinition,
    RateLimitPolicy,
    ResponseCheck,
    ResponsePolicy,
    RetryPolicy,
    TimeoutPolicy,
)
from services.scheduler.domain.schedule import Cron, Daily, Monthly, Schedule, Weekly
from tests.support.scheduler_values import DAY, HOUR, MINUTE, NOW, SECOND, a_definition, at, once

PLAIN = a_definition()


def targeting(**changes: Any) -> dict[str, Any]:
    return {"target": replace(PLAIN.target, **changes)}


def templated(template: str) -> dict[str, Any]:
    return targeting(body=Body(template=template))


def checking(check: ResponseCheck) -> dict[str, Any]:
    return {"response": ResponsePolicy(checks=(ResponseCheck(min_size_bytes=1), check))}


def violations(definition: JobDefinition) -> list[tuple[str, str]]:
    try:
        check_definition(definition, NOW)
    except InvalidArgumentError as error:
        return [(violation.field, violation.reason) for violation in error.violations]
    return []


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"name": ""}, "name", "REQUIRED"),
    ({"name": "x" * 201}, "name", "TOO_LONG"),
    ({"name": "a\x00b"}, "name", "INVALID_TEXT"),
    ({"description": "x" * 2001}, "description", "TOO_LONG"),
    ({"project_id": ""}, "project_id", "INVALID_PROJECT_ID"),
    ({"project_id": "A"}, "project_id", "INVALID_PROJECT_ID"),
    ({"project_id": "a\n"}, "project_id", "INVALID_PROJECT_ID"),
    ({"project_id": "x" * 65}, "project_id", "INVALID_PROJECT_ID"),
    ({"labels": {f"k{n}": "" for n in range(33)}}, "labels", "TOO_MANY_LABELS"),
    ({"labels": {"": "v"}}, "labels", "INVALID_LABEL_KEY"),
    ({"labels": {"a=b": "v"}}, "labels", "INVALID_LABEL_KEY"),
    ({"labels": {"k": "x" * 64}}, "labels", "INVALID_LABEL_VALUE"),
    ({"labels": {"k": "a\nb"}}, "labels", "INVALID_LABEL_VALUE"),
    # The schedule; the engine's own table is in its tests.
    ({"schedule": Schedule(Cron("* * * *"))}, "schedule.cron.expression", ""),
    ({"schedule": Schedule(Cron("0 0 30 2 *"))}, "schedule.cron.expression", "NEVER_FIRES"),
    ({"schedule": Schedule(Daily(time(9)), "Mars/Phobos")}, "schedule.time_zone", ""),
    ({"schedule": once(at(-61))}, "schedule.one_time.instant", "RUN_AT_IN_PAST"),
    ({"schedule": Schedule(Weekly((), time(9)))}, "schedule.weekly.days", "INVALID_DAYS"),
    ({"schedule": Schedule(Monthly(32, time(9)))}, "schedule.monthly.day", "INVALID_DAY"),
    (
        {"schedule": Schedule(Cron("* * * * *"), start_time=at(9), end_time=NOW)},
        "schedule.end_time",
        "END_BEFORE_START",
    ),
    ({"schedule": Schedule(Cron("* * * * *"), jitter=2 * HOUR)}, "schedule.jitter", "INVALID_JITTER"),
    # The target
    (targeting(url=""), "target.url", "INVALID_URL"),
    (targeting(url="ftp://a/"), "target.url", "INVALID_URL"),
    (targeting(prompt=""), "target.prompt", "REQUIRED"),
    (targeting(prompt="x" * 10_001), "target.prompt", "TOO_LONG"),
    (targeting(max_redirects=-1), "target.max_redirects", "OUT_OF_RANGE"),
    (targeting(max_redirects=6), "target.max_redirects", "OUT_OF_RANGE"),
    (targeting(headers=(Header("X-A", "v"), Header("Host", "v"))), "target.headers[1].name", "RESERVED_HEADER"),
    (targeting(body=Body(BodyPreset.OPENAI_CHAT)), "target.body.model", "REQUIRED"),
    (targeting(body=Body(BodyPreset.OPENAI_CHAT, model="x" * 201)), "target.body.model", "TOO_LONG"),
    (targeting(body=Body(BodyPreset.ANTHROPIC_MESSAGES, model="m")), "target.body.max_tokens", "OUT_OF_RANGE"),
    (
        targeting(body=Body(BodyPreset.OPENAI_CHAT, model="m", max_tokens=1_000_001)),
        "target.body.max_tokens",
        "OUT_OF_RANGE",
    ),
    (targeting(body=Body(BodyPreset.OPENAI_CHAT, model="m", max_tokens=-1)), "target.body.max_tokens", "OUT_OF_RANGE"),
    (templated(""), "target.body.template", "INVALID_TEMPLATE"),
    (templated("{"), "target.body.template", "INVALID_TEMPLATE"),
    (templated("{'a': 1}"), "target.body.template", "INVALID_TEMPLATE"),
    (templated('"' + "x" * 65_536 + '"'), "target.body.template", "TOO_LONG"),
    (templated('"' + "ü" * 32_768 + '"'), "target.body.template", "TOO_LONG"),
    (templated('"{{nothing}}"'), "target.body.template", "UNKNOWN_PLACEHOLDER"),
    (templated('"' + "{{prompt}}" * 101 + '"'), "target.body.template", "TOO_MANY_PLACEHOLDERS"),
    (
        targeting(prompt="x" * 10_000, body=Body(template='"' + "{{prompt}}" * 30 + '"')),
        "target.body.template",
        "BODY_TOO_LARGE",
    ),
    # Policies
    ({"retry": RetryPolicy(max_attempts=0)}, "retry_policy.max_attempts", "OUT_OF_RANGE"),
    ({"retry": RetryPolicy(max_attempts=21)}, "retry_policy.max_attempts", "OUT_OF_RANGE"),
    ({"retry": RetryPolicy(initial_backoff=SECOND / 11)}, "retry_policy.initial_backoff", "OUT_OF_RANGE"),
    (
        {"retry": RetryPolicy(initial_backoff=HOUR + SECOND, max_backoff=DAY)},
        "retry_policy.initial_backoff",
        "OUT_OF_RANGE",
    ),
    ({"retry": RetryPolicy(max_backoff=SECOND)}, "retry_policy.max_backoff", "OUT_OF_RANGE"),
    ({"retry": RetryPolicy(max_backoff=DAY + SECOND)}, "retry_policy.max_backoff", "OUT_OF_RANGE"),
    ({"retry": RetryPolicy(max_age=timedelta(0))}, "retry_policy.max_age", "OUT_OF_RANGE"),
    ({"retry": RetryPolicy(max_age=8 * DAY)}, "retry_policy.max_age", "OUT_OF_RANGE"),
    ({"timeout": TimeoutPolicy(total=SECOND / 2, connect=SECOND / 2)}, "timeout_policy.total", "OUT_OF_RANGE"),
    ({"timeout": TimeoutPolicy(total=HOUR + SECOND)}, "timeout_policy.total", "OUT_OF_RANGE"),
    ({"timeout": TimeoutPolicy(connect=31 * SECOND)}, "timeout_policy.connect", "OUT_OF_RANGE"),
    ({"timeout": TimeoutPolicy(first_byte=31 * SECOND)}, "timeout_policy.first_byte", "OUT_OF_RANGE"),
    ({"catch_up": CatchUpPolicy(window=SECOND)}, "catch_up_policy.window", "OUT_OF_RANGE"),
    ({"catch_up": CatchUpPolicy(window=31 * DAY)}, "catch_up_policy.window", "OUT_OF_RANGE"),
    ({"catch_up": CatchUpPolicy(max_fires=0)}, "catch_up_policy.max_fires", "OUT_OF_RANGE"),
    ({"catch_up": CatchUpPolicy(max_fires=1001)}, "catch_up_policy.max_fires", "OUT_OF_RANGE"),
    ({"rate_limit": RateLimitPolicy(0)}, "rate_limit_policy.max_requests_per_minute", "OUT_OF_RANGE"),
    ({"rate_limit": RateLimitPolicy(60_001)}, "rate_limit_policy.max_requests_per_minute", "OUT_OF_RANGE"),
    ({"max_consecutive_failures": 0}, "max_consecutive_failures", "OUT_OF_RANGE"),
    ({"max_consecutive_failures": 1001}, "max_consecutive_failures", "OUT_OF_RANGE"),
    # The answer and the callback
    ({"response": ResponsePolicy((199,))}, "response_policy.success_codes", "OUT_OF_RANGE"),
    ({"response": ResponsePolicy((200, 600))}, "response_policy.success_codes", "OUT_OF_RANGE"),
    ({"response": ResponsePolicy((200,) * 401)}, "response_policy.success_codes", "TOO_MANY_CODES"),
    ({"response": ResponsePolicy(max_size_bytes=999)}, "response_policy.max_size_bytes", "OUT_OF_RANGE"),
    ({"response": ResponsePolicy(max_size_bytes=50_000_001)}, "response_policy.max_size_bytes", "OUT_OF_RANGE"),
    (
        {"response": ResponsePolicy(checks=(ResponseCheck(min_size_bytes=1),) * 17)},
        "response_policy.checks",
        "TOO_MANY_CHECKS",
    ),
    (checking(ResponseCheck()), "response_policy.checks[1]", "INVALID_CHECK"),
    (
        checking(ResponseCheck(json_path_exists="$" * 501)),
        "response_policy.checks[1].json_path_exists",
        "TOO_LONG",
    ),
    (
        checking(ResponseCheck(json_path_equals="$.a", json_value="{")),
        "response_policy.checks[1].json_path_equals.json_value",
        "INVALID_JSON",
    ),
    (
        checking(ResponseCheck(json_path_equals="$.a", json_value="[" * 10_000)),
        "response_policy.checks[1].json_path_equals.json_value",
        "INVALID_JSON",
    ),
    (
        checking(ResponseCheck(json_path_equals="$.a", json_value='{"b": NaN}')),
        "response_policy.checks[1].json_path_equals.json_value",
        "INVALID_JSON",
    ),
    (
        checking(ResponseCheck(json_path_equals="$.a", json_value="1" * 10_001)),
        "response_policy.checks[1].json_path_equals.json_value",
        "TOO_LONG",
    ),
    ({"callback": CallbackPolicy("http://user@host/")}, "callback_policy.url", "INVALID_URL"),
]


@pytest.mark.parametrize(
    ("changes", "field", "reason"), BAD, ids=[f"{field}-{n}" for n, (_, field, _) in enumerate(BAD)]
)
def test_a_bad_field_is_named_with_its_reason(changes: dict[str, Any], field: str, reason: str) -> None:
    found = violations(replace(PLAIN, **changes))
    assert [name for name, _ in found][:1] == [field]
    assert not reason or found[0][1] == reason


GOOD: list[dict[str, Any]] = [
    {},
    {"name": "x" * 200, "description": "line\nline", "project_id": "a-b_c0", "labels": {"a.b-c_d": "Grüße"}},
    {"labels": {f"k{n}": "" for n in range(32)}},
    targeting(prompt="x" * 10_000, max_redirects=0),
    targeting(body=Body(BodyPreset.ANTHROPIC_MESSAGES, model="m", max_tokens=1)),
    targeting(body=Body(BodyPreset.OPENAI_RESPONSES, model="m")),
    templated('{"messages": [{"content": "{{prompt}}"}], "n": 1}'),
    targeting(prompt="x" * 10_000, body=Body(template='"' + "{{prompt}}" * 20 + '"')),
    {"retry": RetryPolicy(20, SECOND / 10, SECOND / 10, 7 * DAY)},
    {"timeout": TimeoutPolicy(HOUR, HOUR, HOUR)},
    {"catch_up": CatchUpPolicy(window=MINUTE, max_fires=1000), "max_consecutive_failures": 1000},
    {"response": ResponsePolicy((200, 599), (ResponseCheck(json_path_equals="$", json_value="null"),) * 16)},
    {"schedule": once(at(-60))},
    {"callback": CallbackPolicy("https://hooks.example.com/x")},
]


@pytest.mark.parametrize("changes", GOOD)
def test_what_is_within_the_limits_passes(changes: dict[str, Any]) -> None:
    assert violations(replace(PLAIN, **changes)) == []


def test_all_violations_come_in_one_report() -> None:
    definition = replace(
        PLAIN,
        name="",
        schedule=Schedule(Cron("x"), "Nowhere"),
        target=replace(PLAIN.target, url="", prompt="", headers=(Header("a b", "\n"),)),
        retry=RetryPolicy(max_attempts=0),
    )
    assert {field for field, _ in violations(definition)} == {
        "name",
        "schedule.time_zone",
        "schedule.cron.expression",
        "target.url",
        "target.prompt",
        "target.headers[0].name",
        "target.headers[0].value",
        "retry_policy.max_attempts",
    }
