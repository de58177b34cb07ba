"""What a job's definition may hold: every limit of the API in one place, every violation in one report.

Paths are those of the Job message, relative to the job; the caller puts `job` before them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from libs.common.errors import FieldViolation, InvalidArgumentError
from services.scheduler.domain.job import (
    Body,
    CallbackPolicy,
    CatchUpPolicy,
    JobDefinition,
    RateLimitPolicy,
    ResponsePolicy,
    RetryPolicy,
    Target,
    TimeoutPolicy,
)
from services.scheduler.domain.request_body import BodyValues, check_template, render_body
from services.scheduler.domain.request_headers import check_headers
from services.scheduler.domain.schedule import Schedule, check_schedule
from services.scheduler.domain.target_url import split_target_url

MAX_PROMPT = 10_000
MAX_TEMPLATE_BYTES = 64 * 1024
MAX_BODY_BYTES = 256 * 1024
"""Bytes that a body may have once the prompt stands in its template; a batch of grants must fit into one message."""

_SECOND, _MINUTE, _HOUR, _DAY = (timedelta(seconds=seconds) for seconds in (1, 60, 3600, 86_400))
_REMEMBERED = 1024
"""Policies whose verdict is remembered: most jobs share theirs with many others."""

MAX_LABELS = 32
MAX_SUCCESS_CODES = 400
MAX_CHECKS = 16
MAX_CHECK_VALUE = 10_000
_SAMPLE = BodyValues(
    "0" * 26, "0" * 60, 1000, datetime(2026, 1, 1, tzinfo=UTC), "UTC", datetime(2026, 1, 1, tzinfo=UTC)
)
"""Values as long as they get."""

PROJECT_ID = re.compile(r"[a-z0-9_-]{1,64}")
_LABEL_KEY = re.compile(r"[a-z0-9_.-]{1,63}")


def check_definition(definition: JobDefinition, now: datetime, *, known_schedule: Schedule | None = None) -> None:
    """Raise InvalidArgumentError with every violation of a definition whose schedule counts from now.

    A schedule that equals the known one is in force already and not checked again: its only fire may be over.
    """
    violations = [
        *_check_names(definition),
        *_check_labels(definition.labels),
        *(() if definition.schedule == known_schedule else _check_schedule(definition.schedule, now)),
        *_check_target(definition.target),
        *_check_attempts(definition.retry, definition.timeout),
        *_check_rates(definition.catch_up, definition.rate_limit, definition.max_consecutive_failures),
        *_check_response(definition.response),
        *_check_callback(definition.callback),
    ]
    if violations:
        raise InvalidArgumentError(violations)


def _check_names(definition: JobDefinition) -> Iterator[FieldViolation]:
    yield from check_length("name", definition.name, 1, 200)
    yield from check_length("description", definition.description, 0, 2000)
    if not PROJECT_ID.fullmatch(definition.project_id):
        yield FieldViolation("project_id", "INVALID_PROJECT_ID", "must be 1 to 64 characters of a-z, 0-9, - and _")


def _check_labels(labels: Mapping[str, str]) -> Iterator[FieldViolation]:
    too_many = list(check_label_count(len(labels)))
    if too_many:
        yield from too_many
        return
    yield from check_label_keys(labels)
    for key, value in labels.items():
        if len(value) > 63 or not value.isprintable():
            yield FieldViolation(
                "labels", "INVALID_LABEL_VALUE", f"the value of {key[:80]!r} must be at most 63 printable characters"
            )


def check_label_keys(keys: Iterable[str]) -> Iterator[FieldViolation]:
    """Yield the refusals of keys that no label has."""
    for key in keys:
        if not _LABEL_KEY.fullmatch(key):
            yield FieldViolation(
                "labels", "INVALID_LABEL_KEY", f"key {key[:80]!r} must be 1 to 63 characters of a-z, 0-9, -, _ and ."
            )


def check_label_count(labels: int) -> Iterator[FieldViolation]:
    """Yield what is wrong with a number of labels, for those who read them, too."""
    if labels > MAX_LABELS:
        yield FieldViolation("labels", "TOO_MANY_LABELS", f"{labels} labels, at most {MAX_LABELS} are allowed")


def _check_schedule(schedule: Schedule, now: datetime) -> Iterator[FieldViolation]:
    try:
        check_schedule(schedule, now)
    except InvalidArgumentError as error:
        yield from error.under("schedule").violations


def _check_target(target: Target) -> Iterator[FieldViolation]:
    yield from _check_url(target.url, "target.url")
    yield from check_headers(target.headers, "target.headers")
    yield from check_length("target.prompt", target.prompt, 1, MAX_PROMPT)
    yield from _between("target.max_redirects", target.max_redirects, 0, 5)
    if target.body is not None:
        yield from _check_body(target, target.body)


def _check_body(target: Target, body: Body) -> Iterator[FieldViolation]:
    if body.preset is None:
        if len(body.template.encode()) > MAX_TEMPLATE_BYTES:
            yield FieldViolation("target.body.template", "TOO_LONG", f"exceeds {MAX_TEMPLATE_BYTES} bytes")
            return
        try:
            check_template(body.template)
        except InvalidArgumentError as error:
            yield from error.under("target.body").violations
            return
        size = len(render_body(target, _SAMPLE))
        if size > MAX_BODY_BYTES:
            yield FieldViolation(
                "target.body.template", "BODY_TOO_LARGE", f"makes a body of {size} bytes, at most {MAX_BODY_BYTES}"
            )
        return
    yield from check_length("target.body.model", body.model, 1, 200)
    needs_limit = body.preset.value == "ANTHROPIC_MESSAGES"
    yield from _between("target.body.max_tokens", body.max_tokens, 1 if needs_limit else 0, 1_000_000)


@lru_cache(maxsize=_REMEMBERED)
def _check_attempts(retry: RetryPolicy, timeout: TimeoutPolicy) -> tuple[FieldViolation, ...]:
    first_byte = timeout.first_byte if timeout.first_byte is not None else timeout.total
    return (
        *_between("retry_policy.max_attempts", retry.max_attempts, 1, 20),
        *_span("retry_policy.initial_backoff", retry.initial_backoff, _SECOND / 10, _HOUR),
        *_span("retry_policy.max_backoff", retry.max_backoff, retry.initial_backoff, _DAY),
        *_span("retry_policy.max_age", retry.max_age, _SECOND, 7 * _DAY),
        *_span("timeout_policy.total", timeout.total, _SECOND, _HOUR),
        *_span("timeout_policy.connect", timeout.connect, _SECOND / 10, timeout.total),
        *_span("timeout_policy.first_byte", first_byte, _SECOND / 10, timeout.total),
    )


@lru_cache(maxsize=_REMEMBERED)
def _check_rates(
    catch_up: CatchUpPolicy, rate_limit: RateLimitPolicy, max_consecutive_failures: int
) -> tuple[FieldViolation, ...]:
    rate = rate_limit.max_requests_per_minute
    return (
        *_span("catch_up_policy.window", catch_up.window, _MINUTE, 30 * _DAY),
        *_between("catch_up_policy.max_fires", catch_up.max_fires, 1, 1000),
        *_between("rate_limit_policy.max_requests_per_minute", rate, 1, 60_000),
        *_between("max_consecutive_failures", max_consecutive_failures, 1, 1000),
    )


def _check_response(policy: ResponsePolicy) -> tuple[FieldViolation, ...]:
    # Checks may be large, and so may codes that are refused; memory must not depend on what callers send.
    plain = not policy.checks and len(policy.success_codes) <= MAX_SUCCESS_CODES
    return _check_plain_response(policy) if plain else tuple(_response_violations(policy))


@lru_cache(maxsize=_REMEMBERED)
def _check_plain_response(policy: ResponsePolicy) -> tuple[FieldViolation, ...]:
    return tuple(_response_violations(policy))


def _response_violations(policy: ResponsePolicy) -> Iterator[FieldViolation]:
    if len(policy.success_codes) > MAX_SUCCESS_CODES:
        count = len(policy.success_codes)
        yield FieldViolation(
            "response_policy.success_codes", "TOO_MANY_CODES", f"{count} codes, at most {MAX_SUCCESS_CODES} are allowed"
        )
        return
    for code in policy.success_codes:
        yield from _between("response_policy.success_codes", code, 200, 599)
    yield from _between("response_policy.max_size_bytes", policy.max_size_bytes, 1000, 50_000_000)
    yield from check_count(len(policy.checks))
    for index, check in enumerate(policy.checks):
        path = f"response_policy.checks[{index}]"
        if check.json_path_exists:
            yield from check_length(f"{path}.json_path_exists", check.json_path_exists, 1, 500)
        elif check.json_path_equals:
            yield from check_length(f"{path}.json_path_equals.path", check.json_path_equals, 1, 500)
            yield from check_length(f"{path}.json_path_equals.json_value", check.json_value, 0, MAX_CHECK_VALUE)
            try:
                json.loads(check.json_value[:MAX_CHECK_VALUE], parse_constant=_refuse_constant)
            except (ValueError, RecursionError):
                yield FieldViolation(f"{path}.json_path_equals.json_value", "INVALID_JSON", "is not JSON")
        elif check.min_size_bytes < 1:
            yield FieldViolation(path, "INVALID_CHECK", "must set json_path_exists, json_path_equals or min_size_bytes")


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads, which are no JSON, and the first of which equals nothing."""
    raise ValueError(name)


def check_count(checks: int) -> Iterator[FieldViolation]:
    """Yield what is wrong with a number of checks, for those who read them, too."""
    if checks > MAX_CHECKS:
        yield FieldViolation("response_policy.checks", "TOO_MANY_CHECKS", f"at most {MAX_CHECKS} checks are allowed")


def _check_callback(policy: CallbackPolicy) -> Iterator[FieldViolation]:
    if policy.url:
        yield from _check_url(policy.url, "callback_policy.url")


def _check_url(url: str, field: str) -> Iterator[FieldViolation]:
    try:
        split_target_url(url, field)
    except InvalidArgumentError as error:
        yield from error.violations


def check_length(field: str, text: str, least: int, most: int) -> Iterator[FieldViolation]:
    """Yield what is wrong with a text of a number of characters."""
    if len(text) < least:
        yield FieldViolation(field, "REQUIRED", "is required")
    elif len(text) > most:
        yield FieldViolation(field, "TOO_LONG", f"has {len(text)} characters, at most {most} are allowed")
    elif "\x00" in text:
        yield FieldViolation(field, "INVALID_TEXT", "holds a NUL character")


def _between(field: str, value: int, least: int, most: int) -> Iterator[FieldViolation]:
    if not least <= value <= most:
        yield FieldViolation(field, "OUT_OF_RANGE", f"{value} is not within {least} to {most}")


def _span(field: str, value: timedelta, least: timedelta, most: timedelta) -> Iterator[FieldViolation]:
    if not least <= value <= most:
        yield FieldViolation(
            field,
            "OUT_OF_RANGE",
            f"{value.total_seconds():g}s is not within {least.total_seconds():g}s to {most.total_seconds():g}s",
        )
