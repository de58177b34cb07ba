"""The canonical hash by which a job submitted twice is known: of org, project, prompt, target and schedule."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from datetime import datetime, time, timedelta
from enum import Enum
from typing import Any

from services.scheduler.domain.job import JobDefinition


def fingerprint(org_id: str, definition: JobDefinition) -> str:
    """Return 64 hex digits that two definitions share when they send the same requests at the same times."""
    content = [org_id, definition.project_id, _canonical(definition.target), _canonical(definition.schedule)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        # The kind is part of it: a daily and a monthly rule may hold equal fields.
        return [type(value).__name__, {field.name: _canonical(getattr(value, field.name)) for field in fields(value)}]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, datetime | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value / timedelta(milliseconds=1)
    if isinstance(value, tuple):
        return [_canonical(item) for item in value]
    return value
