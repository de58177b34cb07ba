"""Renders the body of a job's request: the default shape, a preset of a known API, or the user's JSON template.

Placeholders speak of the execution's own slot (nominal time), never of the wall clock: after a catch-up the prompt says
the day it was meant for. They are replaced inside the strings of the parsed template, so that no value can break out of
its string, and there is no code in a template. The prompt itself is sent as it is, whatever it holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any

from libs.common.errors import InvalidArgumentError
from libs.common.value_type import value_type
from services.scheduler.domain.job import BodyPreset, Target
from services.scheduler.domain.schedule.zones import find_zone

PLACEHOLDERS = (
    "prompt",
    "job_id",
    "execution_id",
    "attempt",
    "fire_time",
    "fire_date",
    "previous_success_time",
)
# The name is stripped afterwards: blanks in the pattern would make it cubic on a long run of them.
_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")

MAX_DEPTH = 64
"""How deep a template's arrays and objects may be nested."""

MAX_PLACEHOLDERS = 100
"""How many placeholders a template may hold, so that its body stays of a known size."""

NUMBER_GROWTH = 4
"""How many times as long as in its template a body may be without any placeholder: `1e15,` becomes 19 bytes."""

LARGEST_FRAME = 512
"""Bytes that are more than what stands around a prompt in a preset, and than any other placeholder's value."""


@value_type
class BodyValues:
    """What the placeholders stand for. `time_zone` is the job's zone, in which `fire_date` is a date."""

    job_id: str
    execution_id: str
    attempt: int
    fire_time: datetime
    time_zone: str
    previous_success_time: datetime | None = None


def render_body(target: Target, values: BodyValues) -> bytes:
    """Return the bytes of the request body: compact JSON, UTF-8."""
    document = _document(target, lambda template: _filled(template, target, values))
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _filled(template: str, target: Target, values: BodyValues) -> Any:
    """Return a template's document with its placeholders replaced."""
    texts = {
        "prompt": target.prompt,
        "job_id": values.job_id,
        "execution_id": values.execution_id,
        "attempt": str(values.attempt),
        "fire_time": _rfc3339(values.fire_time),
        "fire_date": values.fire_time.astimezone(_zone(values.time_zone)).date().isoformat(),
        "previous_success_time": _rfc3339(values.previous_success_time) if values.previous_success_time else "",
    }
    return _map_strings(
        json.loads(template), lambda text: _PLACEHOLDER.sub(lambda found: texts[found[1].strip()], text)
    )


def _zone(name: str) -> tzinfo:
    try:
        return find_zone(name)
    except InvalidArgumentError:
        # Dropped by the time zone database since. To refuse it here would fail the whole batch that it is granted in.
        return UTC


def names_previous_success(target: Target) -> bool:
    """Whether the body tells of the job's latest success, which has to be looked up; True also where it only may."""
    template = target.body.template if target.body else ""
    # An escaped character could be part of the name.
    return "previous_success_time" in template or "\\u" in template


def largest_body(target: Target) -> int:
    """Return a number of bytes that the target's body does not pass, found without making it."""
    prompt = len(json.dumps(target.prompt, ensure_ascii=False).encode())
    body = target.body
    if body is None or body.preset is not None:
        return prompt + LARGEST_FRAME
    # Each value but the prompt is shorter than its frame; an escaped name of a placeholder is not seen here.
    template = NUMBER_GROWTH * len(body.template.encode())
    prompts = MAX_PLACEHOLDERS if "\\u" in body.template else body.template.count("prompt")
    return template + prompts * prompt + MAX_PLACEHOLDERS * LARGEST_FRAME


def check_template(template: str) -> None:
    """Refuse a template that is no JSON, cannot be sent as JSON again, or names an unknown placeholder.

    What passes here must render whatever the values: a template that fails later would fail the whole batch it is in.

    Raises:
        InvalidArgumentError: with the field `template`.
    """
    try:
        document = json.loads(template)
        # Lone surrogates, NaN and numbers beyond all bounds are read, but cannot be written.
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError.of("template", "INVALID_TEMPLATE", f"is not JSON: {error}") from error
    if _depth(document) > MAX_DEPTH:
        raise InvalidArgumentError.of("template", "INVALID_TEMPLATE", f"is nested deeper than {MAX_DEPTH} levels")
    names_used: list[str] = []

    def note(text: str) -> str:
        names_used.extend(name.strip() for name in _PLACEHOLDER.findall(text))
        return text

    _map_strings(document, note)
    if len(names_used) > MAX_PLACEHOLDERS:
        raise InvalidArgumentError.of(
            "template",
            "TOO_MANY_PLACEHOLDERS",
            f"{len(names_used)} placeholders, at most {MAX_PLACEHOLDERS} may be used",
        )
    unknown = set(names_used).difference(PLACEHOLDERS)
    if unknown:
        names = ", ".join(sorted(name[:40] for name in unknown))
        raise InvalidArgumentError.of(
            "template", "UNKNOWN_PLACEHOLDER", f"unknown placeholder {names}; known are {', '.join(PLACEHOLDERS)}"
        )


def _document(target: Target, fill: Callable[[str], Any]) -> Any:
    body = target.body
    if body is None:
        return {"prompt": target.prompt}
    if body.preset is None:
        return fill(body.template)
    message = [{"role": "user", "content": target.prompt}]
    limit = body.max_tokens
    match body.preset:
        case BodyPreset.OPENAI_CHAT:
            return {"model": body.model, "messages": message, **({"max_completion_tokens": limit} if limit else {})}
        case BodyPreset.OPENAI_RESPONSES:
            return {"model": body.model, "input": target.prompt, **({"max_output_tokens": limit} if limit else {})}
        case BodyPreset.ANTHROPIC_MESSAGES:
            return {"model": body.model, "max_tokens": limit, "messages": message}


def _depth(document: Any) -> int:
    """Return how deep a document is nested; level by level, for a recursion might not come back."""
    depth, level = 0, [document]
    while level:
        depth += 1
        containers = [value for value in level if isinstance(value, list | dict)]
        level = [item for value in containers for item in (value.values() if isinstance(value, dict) else value)]
    return depth


def _map_strings(value: Any, fill: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return fill(value)
    if isinstance(value, list):
        return [_map_strings(item, fill) for item in value]
    if isinstance(value, dict):
        return {key: _map_strings(item, fill) for key, item in value.items()}
    return value


def _rfc3339(instant: datetime) -> str:
    return instant.isoformat(timespec="seconds").replace("+00:00", "Z")
