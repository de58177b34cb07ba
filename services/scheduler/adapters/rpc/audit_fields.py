"""A job's fields as the audit shows them: by the paths of the proto, as a reply would show them, contents masked.

What a reply masks is masked here. Prompts and body templates are, too: whoever reads the audit need not be allowed to
read them. They still count as changed when they change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from google.protobuf.json_format import MessageToDict

from services.scheduler.adapters.rpc.definition_mapping import from_definition
from services.scheduler.adapters.rpc.schedule_mapping import from_schedule
from services.scheduler.domain.job import Header, Job
from services.scheduler.domain.request_headers import MASK
from services.scheduler.domain.schedule import Schedule
from services.scheduler.usecases.audit import ShownField, show


class ProtoJobFields:
    """Implements `JobFields`."""

    def outline(self, job: Job) -> Mapping[str, ShownField]:
        """Return what tells a new job."""
        definition = job.definition
        return {
            "job.name": show(definition.name),
            "job.project_id": show(definition.project_id),
            "job.target.url": show(definition.target.url),
            **_content(job),
            **_schedule_fields(definition.schedule),
        }

    def definition(self, job: Job) -> Mapping[str, ShownField]:
        """Return all that callers write."""
        message = from_definition(job.definition)
        # Left to `_content`, which masks them.
        message.target.ClearField("headers")
        message.target.ClearField("prompt")
        if message.target.body.HasField("template"):
            message.target.body.ClearField("template")
        return {**dict(_leaves("job", MessageToDict(message, preserving_proto_field_name=True))), **_content(job)}

    def state(self, job: Job) -> Mapping[str, ShownField]:
        """Return where the job stands, and why."""
        texts = {
            "job.state": f"STATE_{job.state.value}",
            "job.state_reason": job.state_reason,
            "job.state_note": job.state_note,
            "job.purge_time": job.purge_time.isoformat() if job.purge_time else "",
        }
        return {path: show(text) for path, text in texts.items() if text}


@lru_cache(maxsize=1024)
def _schedule_fields(schedule: Schedule) -> Mapping[str, ShownField]:
    """Return the fields of a schedule; remembered, since many jobs share one."""
    message = MessageToDict(from_schedule(schedule), preserving_proto_field_name=True)
    return dict(_leaves("job.schedule", message))


def _content(job: Job) -> dict[str, ShownField]:
    """Return what is masked, and compared in its unmasked form."""
    target = job.definition.target
    fields = {"job.target.prompt": _length_of(target.prompt)}
    if target.body is not None and target.body.preset is None:
        fields["job.target.body.template"] = _length_of(target.body.template)
    if target.headers:
        fields["job.target.headers"] = ShownField(
            json.dumps([_masked(header) for header in target.headers], ensure_ascii=False), target.headers
        )
    return fields


def _masked(header: Header) -> dict[str, str]:
    return {"name": header.name, "value": MASK if header.sensitive else header.value}


def _length_of(text: str) -> ShownField:
    return ShownField(show(f"<{len(text)} characters>").text, text)


def _leaves(path: str, value: Mapping[str, Any]) -> Iterator[tuple[str, ShownField]]:
    """Yield the paths and values below a message; a list is one value, for its items have no names."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(f"{path}.{name}", inner)
        else:
            yield f"{path}.{name}", ShownField(json.dumps(inner, ensure_ascii=False))
