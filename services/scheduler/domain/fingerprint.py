"""The canonical hashes by which a job submitted twice is known.

The fingerprint is of org, project, prompt, target and schedule: who submits the same within minutes made a mistake. The
content digest is of the whole definition: what an idempotency key stands for, also after the job was updated.

Values of sensitive headers stay out of it: a stored hash of a secret can be guessed against, and one keyed by the key
ring would change when keys rotate. Where the values matter, they are compared themselves (docs/decisions).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from datetime import datetime, time, timedelta
from enum import Enum
from functools import cache, lru_cache
from typing import Any

from services.scheduler.domain.job import Header, JobDefinition
from services.scheduler.domain.schedule import Schedule

_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_PLAIN = frozenset({str, int, bool, type(None)})


def fingerprint(org_id: str, definition: JobDefinition) -> str:
    """Return 64 hex digits that two definitions share when they send the same requests at the same times."""
    return _digest(
        _JSON.encode([org_id, definition.project_id, _canonical(definition.target)]),
        _schedule_text(definition.schedule),
    )


def content_digest(definition: JobDefinition) -> str:
    """Return 64 hex digits that two definitions share when all that a caller wrote in them is equal."""
    return _digest(_JSON.encode(_canonical(definition)))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@lru_cache(maxsize=1024)
def _schedule_text(schedule: Schedule) -> str:
    return _JSON.encode(_canonical(schedule))


def _canonical(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value  # Most are; and the kinds of an enum, which may be a str, too, are none of these.
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str | int):
        return value
    if isinstance(value, Header):
        return ["Header", {"name": value.name, "value": "" if value.sensitive else value.value}]
    if isinstance(value, datetime | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value / timedelta(milliseconds=1)
    if isinstance(value, tuple):
        return [_canonical(item) for item in value]
    if is_dataclass(value):
        # The kind is part of it: a daily and a monthly rule may hold equal fields.
        kind: Any = type(value)
        return [kind.__name__, {name: _canonical(getattr(value, name)) for name in _field_names(kind)}]
    return value


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
