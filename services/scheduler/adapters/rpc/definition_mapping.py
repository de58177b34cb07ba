"""Between the Job message and the definition that a caller writes: defaults are filled in on the way in.

On the way out nothing is hidden here; what callers get to see is `job_mapping`'s business.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from functools import lru_cache

from punctual.v1 import job_pb2, schedule_pb2

from libs.common.errors import InvalidArgumentError
from services.scheduler.adapters.rpc.enum_values import choose
from services.scheduler.adapters.rpc.part_reading import Problems, refuse
from services.scheduler.adapters.rpc.policy_mapping import (
    REMEMBERED,
    check_paths,
    read_callback,
    read_catch_up,
    read_response,
    read_retry,
    read_timeout,
    remembered,
    write_callback,
    write_catch_up,
    write_response,
    write_retry,
    write_timeout,
)
from services.scheduler.adapters.rpc.schedule_mapping import from_schedule, to_schedule
from services.scheduler.domain.definition_rules import check_definition, check_label_count
from services.scheduler.domain.job import (
    Body,
    BodyPreset,
    Header,
    JobDefinition,
    OnUnknownOutcome,
    OverlapPolicy,
    RateLimitPolicy,
    Target,
)
from services.scheduler.domain.request_headers import check_header_count, with_sensitivity
from services.scheduler.domain.schedule import Daily, Schedule

_NO_TIME = datetime.min.replace(tzinfo=UTC)
# Stands in for a schedule that could not be read, until all problems of the message are told.
_NO_SCHEDULE = Schedule(Daily(time(0, 0)))
_DEFAULTS = JobDefinition("", _NO_SCHEDULE, Target("", ""))

_OVERLAPS = {
    OverlapPolicy.SKIP: job_pb2.OVERLAP_POLICY_SKIP,
    OverlapPolicy.QUEUE_ONE: job_pb2.OVERLAP_POLICY_QUEUE_ONE,
    OverlapPolicy.ALLOW: job_pb2.OVERLAP_POLICY_ALLOW,
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


def to_definition(message: job_pb2.Job, *, complete: bool = False) -> JobDefinition:
    """Return the definition that a message asks for, defaults filled in.

    Raises:
        InvalidArgumentError: parts that cannot be read, and of a message that is meant to be complete also what is
            wrong with the others; paths are relative to the job.
    """
    problems = Problems()
    read = problems.read
    definition = JobDefinition(
        name=message.name,
        project_id=message.project_id or "default",
        description=message.description,
        labels=read(lambda: _to_labels(message), {}),
        schedule=read(lambda: _to_schedule(message.schedule), _NO_SCHEDULE),
        target=_to_target(
            message.target,
            headers=read(lambda: _to_headers(message.target), ()),
            body=read(lambda: _to_body(message.target), None),
        ),
        retry=read(lambda: read_retry(message.retry_policy), _DEFAULTS.retry),
        timeout=read(lambda: read_timeout(message.timeout_policy), _DEFAULTS.timeout),
        overlap=read(
            lambda: choose(message.overlap_policy, _OVERLAPS, OverlapPolicy.SKIP, "overlap_policy"), _DEFAULTS.overlap
        ),
        catch_up=read(lambda: read_catch_up(message.catch_up_policy), _DEFAULTS.catch_up),
        on_unknown_outcome=read(
            lambda: choose(message.on_unknown_outcome, _ON_UNKNOWN, OnUnknownOutcome.RETRY, "on_unknown_outcome"),
            _DEFAULTS.on_unknown_outcome,
        ),
        rate_limit=RateLimitPolicy(message.rate_limit_policy.max_requests_per_minute or 60),
        response=read(lambda: read_response(message.response_policy), _DEFAULTS.response),
        callback=read_callback(message.callback_policy),
        max_consecutive_failures=message.max_consecutive_failures or 5,
    )
    if definition.response.checks:
        read(lambda: check_paths(message.response_policy), None)
    if problems and complete:
        # What stands in for the parts that could not be read is sound. What the time decides is judged when it can be.
        read(lambda: check_definition(definition, _NO_TIME, known_schedule=_NO_SCHEDULE), None)
    if problems:
        raise InvalidArgumentError(problems)
    return definition


def _to_labels(message: job_pb2.Job) -> dict[str, str]:
    refuse(check_label_count(len(message.labels)))
    return dict(message.labels)


def _to_schedule(message: schedule_pb2.Schedule) -> Schedule:
    try:
        return _read_schedule(message)
    except InvalidArgumentError as error:
        raise error.under("schedule") from error


def _to_target(message: job_pb2.Target, headers: tuple[Header, ...], body: Body | None) -> Target:
    return Target(
        url=message.url,
        prompt=message.prompt,
        headers=headers,
        body=body,
        max_redirects=message.max_redirects if message.HasField("max_redirects") else 5,
    )


def _to_headers(target: job_pb2.Target) -> tuple[Header, ...]:
    refuse(check_header_count(len(target.headers), "target.headers"))
    return tuple(with_sensitivity(Header(header.name, header.value, header.sensitive)) for header in target.headers)


def _to_body(target: job_pb2.Target) -> Body | None:
    if not target.HasField("body"):
        return None
    message = target.body
    match message.WhichOneof("form"):
        case "preset":
            preset = choose(message.preset, _PRESETS, None, "target.body.preset")
            return Body(preset=preset, model=message.model, max_tokens=message.max_tokens)
        case "template":
            return Body(template=message.template)
        case None:
            raise InvalidArgumentError.of("target.body.form", "REQUIRED", "one of preset and template is required")


_read_schedule = remembered(schedule_pb2.Schedule, to_schedule)


def from_definition(definition: JobDefinition) -> job_pb2.Job:
    """Return the message of a definition, every default written out."""
    # The parts are shared with other calls; the message takes copies.
    return job_pb2.Job(
        project_id=definition.project_id,
        name=definition.name,
        description=definition.description,
        labels=dict(definition.labels),
        schedule=_write_schedule(definition.schedule),
        target=_from_target(definition.target),
        retry_policy=write_retry(definition.retry),
        timeout_policy=write_timeout(definition.timeout),
        overlap_policy=_OVERLAPS[definition.overlap],
        catch_up_policy=write_catch_up(definition.catch_up),
        on_unknown_outcome=_ON_UNKNOWN[definition.on_unknown_outcome],
        rate_limit_policy=job_pb2.RateLimitPolicy(
            max_requests_per_minute=definition.rate_limit.max_requests_per_minute
        ),
        response_policy=write_response(definition.response),
        callback_policy=write_callback(definition.callback),
        max_consecutive_failures=definition.max_consecutive_failures,
    )


def _from_target(target: Target) -> job_pb2.Target:
    return job_pb2.Target(
        url=target.url,
        headers=[
            job_pb2.Header(name=header.name, value=header.value, sensitive=header.sensitive)
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


_write_schedule = lru_cache(maxsize=REMEMBERED)(from_schedule)
