"""Between the Job message and job values: defaults are filled in on the way in, secrets masked on the way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import time, timedelta
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from punctual.v1 import job_pb2

from libs.common.errors import FieldViolation, InvalidArgumentError
from services.scheduler.adapters.rpc.schedule_mapping import from_schedule, to_schedule
from services.scheduler.adapters.rpc.times import to_duration, to_optional_timestamp, to_span, to_timestamp
from services.scheduler.domain.job import (
    Body,
    BodyPreset,
    CallbackPolicy,
    CatchUpMode,
    CatchUpPolicy,
    Header,
    Job,
    JobDefinition,
    JobState,
    OnUnknownOutcome,
    OverlapPolicy,
    RateLimitPolicy,
    ResponseCheck,
    ResponsePolicy,
    RetryPolicy,
    Target,
    TimeoutPolicy,
)
from services.scheduler.domain.request_headers import with_sensitivity
from services.scheduler.domain.schedule import Daily, Schedule

MASK = "********"
"""What a sensitive value looks like in every reply."""

# Stands in for a schedule that could not be read, until all problems of the message are told.
_NO_SCHEDULE = Schedule(Daily(time(0, 0)))
_Enum = TypeVar("_Enum")
_Value = TypeVar("_Value")

_STATES = {
    JobState.ACTIVE: job_pb2.Job.STATE_ACTIVE,
    JobState.PAUSED: job_pb2.Job.STATE_PAUSED,
    JobState.COMPLETED: job_pb2.Job.STATE_COMPLETED,
    JobState.FAILED: job_pb2.Job.STATE_FAILED,
    JobState.DELETED: job_pb2.Job.STATE_DELETED,
}
_OVERLAPS = {
    OverlapPolicy.SKIP: job_pb2.OVERLAP_POLICY_SKIP,
    OverlapPolicy.QUEUE_ONE: job_pb2.OVERLAP_POLICY_QUEUE_ONE,
    OverlapPolicy.ALLOW: job_pb2.OVERLAP_POLICY_ALLOW,
}
_CATCH_UPS = {
    CatchUpMode.LATEST: job_pb2.CatchUpPolicy.MODE_LATEST,
    CatchUpMode.ALL: job_pb2.CatchUpPolicy.MODE_ALL,
    CatchUpMode.NONE: job_pb2.CatchUpPolicy.MODE_NONE,
}
_ON_UNKNOWN = {
    OnUnknownOutcome.RETRY: job_pb2.ON_UNKNOWN_OUTCOME_RETRY,
    OnUnknownOutcome.FAIL: job_pb2.ON_UNKNOWN_OUTCOME_FAIL,
}
_PRESETS = {
    BodyPreset.OPENAI_CHAT: job_pb2.BODY_PRESET_OPENAI_CHAT,
    BodyPreset.OPENAI_RESPONSES: job_pb2.BODY_PRESET_OPENAI_RESPONSES,
    BodyPreset.ANTHROPIC_MESSAGES: job_pb2.BODY_PRESET_ANTHROPIC_MESSAGES,
}


def to_job_state(state: job_pb2.Job.State.ValueType, field: str) -> JobState:
    """Return the state that a filter names."""
    return _choose(state, _STATES, None, field)


def to_definition(message: job_pb2.Job) -> JobDefinition:
    """Return the definition that a message asks for, defaults filled in.

    Raises:
        InvalidArgumentError: parts that cannot be read; paths are relative to the job.
    """
    problems: list[FieldViolation] = []

    def read(part: Callable[[], _Value], fallback: _Value) -> _Value:
        try:
            return part()
        except InvalidArgumentError as error:
            problems.extend(error.violations)
            return fallback

    defaults = JobDefinition("", _NO_SCHEDULE, Target("", ""))
    definition = JobDefinition(
        name=message.name,
        project_id=message.project_id or "default",
        description=message.description,
        labels=dict(message.labels),
        schedule=read(lambda: _to_schedule(message), _NO_SCHEDULE),
        target=read(lambda: _to_target(message.target), defaults.target),
        retry=read(lambda: _to_retry(message.retry_policy), defaults.retry),
        timeout=read(lambda: _to_timeout(message.timeout_policy), defaults.timeout),
        overlap=read(
            lambda: _choose(message.overlap_policy, _OVERLAPS, OverlapPolicy.SKIP, "overlap_policy"), defaults.overlap
        ),
        catch_up=read(lambda: _to_catch_up(message.catch_up_policy), defaults.catch_up),
        on_unknown_outcome=read(
            lambda: _choose(message.on_unknown_outcome, _ON_UNKNOWN, OnUnknownOutcome.RETRY, "on_unknown_outcome"),
            defaults.on_unknown_outcome,
        ),
        rate_limit=RateLimitPolicy(message.rate_limit_policy.max_requests_per_minute or 60),
        response=read(lambda: _to_response(message.response_policy), defaults.response),
        callback=_to_callback(message.callback_policy),
        max_consecutive_failures=message.max_consecutive_failures or 5,
    )
    if problems:
        raise InvalidArgumentError(problems)
    return definition


def _to_schedule(message: job_pb2.Job) -> Schedule:
    try:
        return to_schedule(message.schedule)
    except InvalidArgumentError as error:
        raise error.under("schedule") from error


def _to_target(message: job_pb2.Target) -> Target:
    return Target(
        url=message.url,
        prompt=message.prompt,
        headers=tuple(
            with_sensitivity(Header(header.name, header.value, header.sensitive)) for header in message.headers
        ),
        body=_to_body(message.body) if message.HasField("body") else None,
        max_redirects=message.max_redirects if message.HasField("max_redirects") else 5,
    )


def _to_body(message: job_pb2.Body) -> Body:
    match message.WhichOneof("form"):
        case "preset":
            preset = _choose(message.preset, _PRESETS, None, "target.body.preset")
            return Body(preset=preset, model=message.model, max_tokens=message.max_tokens)
        case "template":
            return Body(template=message.template)
        case None:
            raise InvalidArgumentError.of("target.body.form", "REQUIRED", "one of preset and template is required")


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
    return TimeoutPolicy(
        total=total,
        connect=_span(message, "connect", min(TimeoutPolicy().connect, total), "timeout_policy"),
        first_byte=(
            to_span(message.first_byte, "timeout_policy.first_byte") if message.HasField("first_byte") else None
        ),
    )


def _to_catch_up(message: job_pb2.CatchUpPolicy) -> CatchUpPolicy:
    default = CatchUpPolicy()
    return CatchUpPolicy(
        mode=_choose(message.mode, _CATCH_UPS, default.mode, "catch_up_policy.mode"),
        window=_span(message, "window", default.window, "catch_up_policy"),
        max_fires=message.max_fires or default.max_fires,
    )


def _to_response(message: job_pb2.ResponsePolicy) -> ResponsePolicy:
    return ResponsePolicy(
        success_codes=tuple(message.success_codes),
        checks=tuple(_to_check(check) for check in message.checks),
        max_size_bytes=message.max_size_bytes or ResponsePolicy().max_size_bytes,
        store_full_response=message.store_full_response if message.HasField("store_full_response") else True,
    )


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


def from_job(job: Job) -> job_pb2.Job:
    """Return the message of a job, with sensitive header values masked."""
    definition = job.definition
    active = job.state is JobState.ACTIVE
    return job_pb2.Job(
        job_id=job.job_id,
        org_id=job.org_id,
        project_id=definition.project_id,
        name=definition.name,
        description=definition.description,
        labels=dict(definition.labels),
        schedule=from_schedule(definition.schedule),
        target=_from_target(definition.target),
        retry_policy=job_pb2.RetryPolicy(
            max_attempts=definition.retry.max_attempts,
            initial_backoff=to_duration(definition.retry.initial_backoff),
            max_backoff=to_duration(definition.retry.max_backoff),
            max_age=to_duration(definition.retry.max_age),
            retry_conflict=definition.retry.retry_conflict,
        ),
        timeout_policy=job_pb2.TimeoutPolicy(
            total=to_duration(definition.timeout.total),
            connect=to_duration(definition.timeout.connect),
            first_byte=to_duration(definition.timeout.first_byte or definition.timeout.total),
        ),
        overlap_policy=_OVERLAPS[definition.overlap],
        catch_up_policy=job_pb2.CatchUpPolicy(
            mode=_CATCH_UPS[definition.catch_up.mode],
            window=to_duration(definition.catch_up.window),
            max_fires=definition.catch_up.max_fires,
        ),
        on_unknown_outcome=_ON_UNKNOWN[definition.on_unknown_outcome],
        rate_limit_policy=job_pb2.RateLimitPolicy(
            max_requests_per_minute=definition.rate_limit.max_requests_per_minute
        ),
        response_policy=from_response_policy(definition.response),
        callback_policy=job_pb2.CallbackPolicy(
            url=definition.callback.url,
            notify_failure=definition.callback.notify_failure,
            notify_success=definition.callback.notify_success,
        ),
        max_consecutive_failures=definition.max_consecutive_failures,
        state=_STATES[job.state],
        state_reason=job.state_reason,
        state_note=job.state_note,
        next_fire_time=to_optional_timestamp(job.next_fire_time if active else None),
        revision=job.revision,
        etag=job.etag,
        create_time=to_timestamp(job.create_time),
        update_time=to_timestamp(job.update_time),
        delete_time=to_optional_timestamp(job.delete_time),
        purge_time=to_optional_timestamp(job.purge_time),
        creator=job.creator,
        consecutive_failures=job.consecutive_failures,
        fingerprint=job.fingerprint,
        tzdata_version=job.tzdata_version,
    )


def from_response_policy(policy: ResponsePolicy) -> job_pb2.ResponsePolicy:
    """Return the message of a response policy; executors get it too."""
    return job_pb2.ResponsePolicy(
        success_codes=policy.success_codes,
        checks=[_from_check(check) for check in policy.checks],
        max_size_bytes=policy.max_size_bytes,
        store_full_response=policy.store_full_response,
    )


def _from_target(target: Target) -> job_pb2.Target:
    return job_pb2.Target(
        url=target.url,
        headers=[
            job_pb2.Header(
                name=header.name, value=MASK if header.sensitive else header.value, sensitive=header.sensitive
            )
            for header in target.headers
        ],
        prompt=target.prompt,
        body=_from_body(target.body) if target.body else None,
        max_redirects=target.max_redirects,
    )


def _from_body(body: Body) -> job_pb2.Body:
    if body.preset is None:
        return job_pb2.Body(template=body.template)
    return job_pb2.Body(preset=_PRESETS[body.preset], model=body.model, max_tokens=body.max_tokens)


def _from_check(check: ResponseCheck) -> job_pb2.ResponseCheck:
    if check.json_path_equals:
        equals = job_pb2.JsonPathEquals(path=check.json_path_equals, json_value=check.json_value)
        return job_pb2.ResponseCheck(json_path_equals=equals)
    if check.json_path_exists:
        return job_pb2.ResponseCheck(json_path_exists=check.json_path_exists)
    return job_pb2.ResponseCheck(min_size_bytes=check.min_size_bytes)


def _choose(number: int, known: Mapping[_Enum, int], default: _Enum | None, field: str) -> _Enum:
    """Return the value of an enum's number; 0 is the default."""
    if number == 0 and default is not None:
        return default
    for value, its_number in known.items():
        if its_number == number:
            return value
    raise InvalidArgumentError.of(field, "UNKNOWN_ENUM_VALUE", f"{number} is not a known value")


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
