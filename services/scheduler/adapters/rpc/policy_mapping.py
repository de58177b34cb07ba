"""Between the policies of the Job message and their values: defaults are filled in on the way in.

Most jobs share their policies with thousands of others. They are values, so both ways are remembered: it makes the
difference where a thousand jobs are created at once. A remembered message belongs to all; who needs it copies it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from punctual.v1 import job_pb2

from libs.common.errors import FieldViolation
from services.scheduler.adapters.rpc.enum_values import choose
from services.scheduler.adapters.rpc.json_paths import path_problem
from services.scheduler.adapters.rpc.part_reading import refuse
from services.scheduler.adapters.rpc.times import to_duration, to_span
from services.scheduler.domain.definition_rules import check_count
from services.scheduler.domain.job import (
    CallbackPolicy,
    CatchUpMode,
    CatchUpPolicy,
    ResponseCheck,
    ResponsePolicy,
    RetryPolicy,
    TimeoutPolicy,
)

REMEMBERED = 1024
"""Values of one kind that are remembered."""

MAX_REMEMBERED_BYTES = 2048
"""Larger parts are read each time: memory must not depend on what callers send."""

_Value = TypeVar("_Value")
_Part = TypeVar("_Part", bound=Message)

_CATCH_UPS = {
    CatchUpMode.LATEST: job_pb2.CatchUpPolicy.MODE_LATEST,
    CatchUpMode.ALL: job_pb2.CatchUpPolicy.MODE_ALL,
    CatchUpMode.NONE: job_pb2.CatchUpPolicy.MODE_NONE,
}


def remembered(kind: type[_Part], read: Callable[[_Part], _Value]) -> Callable[[_Part], _Value]:
    """Return the reader of a part, which reads equal parts once; what is large or refused is not remembered."""

    @lru_cache(maxsize=REMEMBERED)
    def read_bytes(data: bytes) -> _Value:
        return read(kind.FromString(data))

    def read_part(part: _Part) -> _Value:
        data = part.SerializeToString(deterministic=True)
        return read_bytes(data) if len(data) <= MAX_REMEMBERED_BYTES else read(part)

    return read_part


def _to_retry(message: job_pb2.RetryPolicy) -> RetryPolicy:
    default = RetryPolicy()
    return RetryPolicy(
        max_attempts=message.max_attempts or default.max_attempts,
        initial_backoff=_span(message, "initial_backoff", default.initial_backoff, "retry_policy"),
        max_backoff=_span(message, "max_backoff", default.max_backoff, "retry_policy"),
        max_age=_span(message, "max_age", default.max_age, "retry_policy"),
        retry_conflict=message.retry_conflict,
    )


def _to_timeout(message: job_pb2.TimeoutPolicy) -> TimeoutPolicy:
    total = _span(message, "total", TimeoutPolicy().total, "timeout_policy")
    first_byte = _span(message, "first_byte", total, "timeout_policy")
    return TimeoutPolicy(
        total=total,
        connect=_span(message, "connect", min(TimeoutPolicy().connect, total), "timeout_policy"),
        # As long as the total is what it follows from, so that a reply that is sent back changes nothing.
        first_byte=first_byte if first_byte != total else None,
    )


def _to_catch_up(message: job_pb2.CatchUpPolicy) -> CatchUpPolicy:
    default = CatchUpPolicy()
    return CatchUpPolicy(
        mode=choose(message.mode, _CATCH_UPS, default.mode, "catch_up_policy.mode"),
        window=_span(message, "window", default.window, "catch_up_policy"),
        max_fires=message.max_fires or default.max_fires,
    )


def _check_paths(message: job_pb2.ResponsePolicy) -> None:
    """Raise InvalidArgumentError with every JSONPath of a response policy that no executor evaluates."""
    refuse(violation for index, check in enumerate(message.checks) for violation in _bad_paths(index, check))


def _to_response(message: job_pb2.ResponsePolicy) -> ResponsePolicy:
    # First: to read the path of a check takes up to some milliseconds, and a message has room for thousands.
    refuse(check_count(len(message.checks)))
    return ResponsePolicy(
        success_codes=tuple(message.success_codes),
        checks=tuple(_to_check(check) for check in message.checks),
        max_size_bytes=message.max_size_bytes or ResponsePolicy().max_size_bytes,
        store_full_response=message.store_full_response if message.HasField("store_full_response") else True,
    )


def _bad_paths(index: int, message: job_pb2.ResponseCheck) -> Iterator[FieldViolation]:
    parent = f"response_policy.checks[{index}]"
    for field, path in (
        ("json_path_exists", message.json_path_exists),
        ("json_path_equals.path", message.json_path_equals.path),
    ):
        problem = path_problem(path)
        if problem is not None:
            yield FieldViolation(f"{parent}.{field}", "INVALID_JSON_PATH", problem)


def _to_check(message: job_pb2.ResponseCheck) -> ResponseCheck:
    return ResponseCheck(
        json_path_exists=message.json_path_exists,
        json_path_equals=message.json_path_equals.path,
        json_value=message.json_path_equals.json_value,
        min_size_bytes=message.min_size_bytes,
    )


def _to_callback(message: job_pb2.CallbackPolicy) -> CallbackPolicy:
    return CallbackPolicy(
        url=message.url,
        notify_failure=message.notify_failure if message.HasField("notify_failure") else True,
        notify_success=message.notify_success,
    )


read_retry = remembered(job_pb2.RetryPolicy, _to_retry)
read_timeout = remembered(job_pb2.TimeoutPolicy, _to_timeout)
read_catch_up = remembered(job_pb2.CatchUpPolicy, _to_catch_up)
check_paths = remembered(job_pb2.ResponsePolicy, _check_paths)
read_response = remembered(job_pb2.ResponsePolicy, _to_response)
read_callback = remembered(job_pb2.CallbackPolicy, _to_callback)


def _from_response(policy: ResponsePolicy) -> job_pb2.ResponsePolicy:
    """Return the message of a response policy."""
    return job_pb2.ResponsePolicy(
        success_codes=policy.success_codes,
        checks=[_from_check(check) for check in policy.checks],
        max_size_bytes=policy.max_size_bytes,
        store_full_response=policy.store_full_response,
    )


def _from_retry(policy: RetryPolicy) -> job_pb2.RetryPolicy:
    return job_pb2.RetryPolicy(
        max_attempts=policy.max_attempts,
        initial_backoff=to_duration(policy.initial_backoff),
        max_backoff=to_duration(policy.max_backoff),
        max_age=to_duration(policy.max_age),
        retry_conflict=policy.retry_conflict,
    )


def _from_timeout(policy: TimeoutPolicy) -> job_pb2.TimeoutPolicy:
    return job_pb2.TimeoutPolicy(
        total=to_duration(policy.total),
        connect=to_duration(policy.connect),
        first_byte=to_duration(policy.first_byte or policy.total),
    )


def _from_catch_up(policy: CatchUpPolicy) -> job_pb2.CatchUpPolicy:
    return job_pb2.CatchUpPolicy(
        mode=_CATCH_UPS[policy.mode], window=to_duration(policy.window), max_fires=policy.max_fires
    )


def _from_callback(policy: CallbackPolicy) -> job_pb2.CallbackPolicy:
    return job_pb2.CallbackPolicy(
        url=policy.url, notify_failure=policy.notify_failure, notify_success=policy.notify_success
    )


write_retry = lru_cache(maxsize=REMEMBERED)(_from_retry)
write_timeout = lru_cache(maxsize=REMEMBERED)(_from_timeout)
write_catch_up = lru_cache(maxsize=REMEMBERED)(_from_catch_up)
_write_plain_response = lru_cache(maxsize=REMEMBERED)(_from_response)
write_callback = lru_cache(maxsize=REMEMBERED)(_from_callback)


def write_response(policy: ResponsePolicy) -> job_pb2.ResponsePolicy:
    """Return the message of a response policy, remembered when it is a small one; executors get it too."""
    return _from_response(policy) if policy.checks else _write_plain_response(policy)


def _from_check(check: ResponseCheck) -> job_pb2.ResponseCheck:
    if check.json_path_equals:
        equals = job_pb2.JsonPathEquals(path=check.json_path_equals, json_value=check.json_value)
        return job_pb2.ResponseCheck(json_path_equals=equals)
    if check.json_path_exists:
        return job_pb2.ResponseCheck(json_path_exists=check.json_path_exists)
    return job_pb2.ResponseCheck(min_size_bytes=check.min_size_bytes)


def _span(
    message: job_pb2.RetryPolicy | job_pb2.TimeoutPolicy | job_pb2.CatchUpPolicy,
    name: str,
    default: timedelta,
    parent: str,
) -> timedelta:
    # HasField takes literals only, but the names come from the callers above.
    if not message.HasField(name):  # type: ignore[arg-type]
        return default
    duration: Duration = getattr(message, name)
    return to_span(duration, f"{parent}.{name}")
