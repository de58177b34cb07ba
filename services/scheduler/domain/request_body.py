"""Renders the body of a job's request: the default shape, a preset of a known API, or the user's JSON template.

Placeholders speak of the execution's own slot (nominal time), never of the wall clock: after a catch-up the prompt says
the day it was meant for. They are replaced inside the strings of the parsed template, so that no value can break out of
its string, and there is no code in a template. The prompt itself is sent as it is, whatever it holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.errors import InvalidArgumentError
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
_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


@dataclass(frozen=True, slots=True)
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
    texts = {
        "prompt": target.prompt,
        "job_id": values.job_id,
        "execution_id": values.execution_id,
        "attempt": str(values.attempt),
        "fire_time": _rfc3339(values.fire_time),
        "fire_date": values.fire_time.astimezone(find_zone(values.time_zone)).date().isoformat(),
        "previous_success_time": _rfc3339(values.previous_success_time) if values.previous_success_time else "",
    }
    document = _document(target, lambda text: _PLACEHOLDER.sub(lambda found: texts[found[1]], text))
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def check_template(template: str) -> None:
    """Refuse a template that is no JSON or names an unknown placeholder.

    Raises:
        InvalidArgumentError: with the field `template`.
    """
    try:
        document = json.loads(template)
    except ValueError as error:
        raise InvalidArgumentError.of("template", "INVALID_TEMPLATE", f"is not JSON: {error}") from error
    unknown: set[str] = set()

    def note(text: str) -> str:
        unknown.update(name for name in _PLACEHOLDER.findall(text) if name not in PLACEHOLDERS)
        return text

    _map_strings(document, note)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise InvalidArgumentError.of(
            "template", "UNKNOWN_PLACEHOLDER", f"unknown placeholder {names}; known are {', '.join(PLACEHOLDERS)}"
        )


def _document(target: Target, fill: Callable[[str], str]) -> Any:
    body = target.body
    if body is None:
        return {"prompt": target.prompt}
    if body.preset is None:
        return _map_strings(json.loads(body.template), fill)
    message = [{"role": "user", "content": target.prompt}]
    limit = body.max_tokens
    match body.preset:
        case BodyPreset.OPENAI_CHAT:
            return {"model": body.model, "messages": message, **({"max_completion_tokens": limit} if limit else {})}
        case BodyPreset.OPENAI_RESPONSES:
            return {"model": body.model, "input": target.prompt, **({"max_output_tokens": limit} if limit else {})}
        case BodyPreset.ANTHROPIC_MESSAGES:
            return {"model": body.model, "max_tokens": limit, "messages": message}


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
