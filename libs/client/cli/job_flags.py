"""The flags that say what a job is, for `create` and `update`: each that is given becomes a field and a mask path."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from punctual.v1 import job_pb2
from punctual.v1.job_pb2 import Job

from libs.client.cli import flag_values
from libs.client.cli.schedule_flags import ScheduleFlags
from libs.client.timestamps import duration

TARGET = "Target"
POLICIES = "Policies"


class Preset(enum.StrEnum):
    """Ready-made request bodies."""

    OPENAI_CHAT = "openai-chat"
    OPENAI_RESPONSES = "openai-responses"
    ANTHROPIC_MESSAGES = "anthropic-messages"


class Overlap(enum.StrEnum):
    """What happens to a fire while an earlier one is not final."""

    SKIP = "skip"
    QUEUE_ONE = "queue-one"
    ALLOW = "allow"


class CatchUp(enum.StrEnum):
    """Which missed fires run."""

    LATEST = "latest"
    ALL = "all"
    NONE = "none"


class UnknownOutcome(enum.StrEnum):
    """What happens to a request that may have been sent and got no answer."""

    RETRY = "retry"
    FAIL = "fail"


def _option(*names: str, text: str, panel: str | None = None, metavar: str | None = None) -> object:
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel)


def _number(*, most: int, text: str, panel: str) -> object:
    return typer.Option(min=0, max=most, help=text, rich_help_panel=panel)


@dataclass(frozen=True)
class JobFlags:
    """What a job is, beside its schedule."""

    name: Annotated[str | None, _option(text="What people call it.")] = None
    description: Annotated[str | None, _option(text="Free text for people.")] = None
    label: Annotated[list[str], _option(text="A label; may be repeated.", metavar="KEY=VALUE")] = field(
        default_factory=list
    )
    url: Annotated[str | None, _option(text="Where to POST.", panel=TARGET)] = None
    prompt: Annotated[str | None, _option(text="The prompt.", panel=TARGET)] = None
    prompt_file: Annotated[
        str | None, _option(text="A file with the prompt; - reads stdin.", panel=TARGET, metavar="FILE")
    ] = None
    header: Annotated[
        list[str],
        _option("--header", "-H", text="A header; may be repeated.", panel=TARGET, metavar="'NAME: VALUE'"),
    ] = field(default_factory=list)
    secret_header: Annotated[
        list[str],
        _option(
            text="A header whose value is encrypted and masked; @FILE reads the value.",
            panel=TARGET,
            metavar="'NAME: VALUE'",
        ),
    ] = field(default_factory=list)
    preset: Annotated[Preset | None, _option(text="The request body of a known API.", panel=TARGET)] = None
    model: Annotated[str, _option(text="The model that a preset names.", panel=TARGET)] = ""
    max_tokens: Annotated[int, _number(most=1_000_000, text="The answer's token limit in a preset.", panel=TARGET)] = 0
    body_template: Annotated[
        str | None, _option(text="A file with the JSON body and its {{placeholders}}.", panel=TARGET, metavar="FILE")
    ] = None
    max_attempts: Annotated[int | None, _number(most=20, text="Attempts in all, 1 to 20.", panel=POLICIES)] = None
    timeout: Annotated[
        str | None, _option(text="How long an attempt may take, 30s.", panel=POLICIES, metavar="SPAN")
    ] = None
    overlap: Annotated[
        Overlap | None, _option(text="What happens to a fire while an earlier one is not final.", panel=POLICIES)
    ] = None
    catch_up: Annotated[CatchUp | None, _option(text="Which missed fires run.", panel=POLICIES)] = None
    on_unknown: Annotated[
        UnknownOutcome | None, _option(text="What a request without an answer leads to.", panel=POLICIES)
    ] = None
    max_per_minute: Annotated[int | None, _number(most=60_000, text="The job's own request rate.", panel=POLICIES)] = (
        None
    )
    max_failures: Annotated[
        int | None, _number(most=1000, text="Failures in a row that end the job.", panel=POLICIES)
    ] = None
    callback_url: Annotated[str | None, _option(text="Who is told about failures.", panel=POLICIES)] = None

    def definition(self, schedule: ScheduleFlags) -> tuple[Job, FieldMask]:
        """Return a job with the fields that were given, and the mask that names them.

        Raises:
            typer.BadParameter: a value that does not parse, or flags that exclude each other.
        """
        job, mask = Job(), FieldMask()
        when = schedule.schedule()
        if when is not None:
            job.schedule.CopyFrom(when)
            mask.paths.append("schedule")
        for path, part in self._parts():
            job.MergeFrom(part)
            mask.paths.append(path)
        return job, mask

    def _parts(self) -> Iterator[tuple[str, Job]]:
        yield from self._texts()
        yield from self._target()
        yield from self._policies()

    def _texts(self) -> Iterator[tuple[str, Job]]:
        if self.name is not None:
            yield "name", Job(name=self.name)
        if self.description is not None:
            yield "description", Job(description=self.description)
        if self.label:
            yield "labels", Job(labels=flag_values.pairs(self.label, "--label"))

    def _target(self) -> Iterator[tuple[str, Job]]:
        if self.url is not None:
            yield "target.url", _with_target(url=self.url)
        prompt = self._prompt()
        if prompt is not None:
            yield "target.prompt", _with_target(prompt=prompt)
        headers = [flag_values.header(text, "--header") for text in self.header]
        secrets = [flag_values.secret_header(text, "--secret-header") for text in self.secret_header]
        if headers or secrets:
            sent = [job_pb2.Header(name=name, value=value) for name, value in headers]
            sent += [job_pb2.Header(name=name, value=value, sensitive=True) for name, value in secrets]
            yield "target.headers", Job(target=job_pb2.Target(headers=sent))
        body = self._body()
        if body is not None:
            yield "target.body", Job(target=job_pb2.Target(body=body))

    def _prompt(self) -> str | None:
        if self.prompt is not None and self.prompt_file is not None:
            raise typer.BadParameter("--prompt and --prompt-file exclude each other")
        return self.prompt if self.prompt_file is None else flag_values.read_text(self.prompt_file, "--prompt-file")

    def _body(self) -> job_pb2.Body | None:
        if self.preset is None and (self.model or self.max_tokens):
            raise typer.BadParameter("--model and --max-tokens are a preset's; give --preset as well")
        if self.body_template is not None:
            if self.preset is not None:
                raise typer.BadParameter("--preset and --body-template exclude each other")
            return job_pb2.Body(template=flag_values.read_text(self.body_template, "--body-template"))
        if self.preset is None:
            return None
        preset = job_pb2.BodyPreset.Value(_value_name("BODY_PRESET", self.preset))
        return job_pb2.Body(preset=preset, model=self.model, max_tokens=self.max_tokens)

    def _policies(self) -> Iterator[tuple[str, Job]]:
        if self.max_attempts is not None:
            yield "retry_policy.max_attempts", Job(retry_policy=job_pb2.RetryPolicy(max_attempts=self.max_attempts))
        if self.timeout is not None:
            total = duration(flag_values.span(self.timeout, "--timeout"))
            yield "timeout_policy.total", Job(timeout_policy=job_pb2.TimeoutPolicy(total=total))
        if self.overlap is not None:
            policy = job_pb2.OverlapPolicy.Value(_value_name("OVERLAP_POLICY", self.overlap))
            yield "overlap_policy", Job(overlap_policy=policy)
        if self.catch_up is not None:
            mode = job_pb2.CatchUpPolicy.Mode.Value(_value_name("MODE", self.catch_up))
            yield "catch_up_policy.mode", Job(catch_up_policy=job_pb2.CatchUpPolicy(mode=mode))
        if self.on_unknown is not None:
            outcome = job_pb2.OnUnknownOutcome.Value(_value_name("ON_UNKNOWN_OUTCOME", self.on_unknown))
            yield "on_unknown_outcome", Job(on_unknown_outcome=outcome)
        if self.max_per_minute is not None:
            rate = job_pb2.RateLimitPolicy(max_requests_per_minute=self.max_per_minute)
            yield "rate_limit_policy.max_requests_per_minute", Job(rate_limit_policy=rate)
        if self.max_failures is not None:
            yield "max_consecutive_failures", Job(max_consecutive_failures=self.max_failures)
        if self.callback_url is not None:
            yield "callback_policy.url", Job(callback_policy=job_pb2.CallbackPolicy(url=self.callback_url))


def _with_target(*, url: str = "", prompt: str = "") -> Job:
    return Job(target=job_pb2.Target(url=url, prompt=prompt))


def _value_name(prefix: str, choice: enum.StrEnum) -> str:
    return f"{prefix}_{choice.name}"
