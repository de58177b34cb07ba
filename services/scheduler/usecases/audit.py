"""The audit: who changed what, when, and what came of it.

The event of a change travels with the change: stores take it as `audit=` and write it in the same single-document write
as what it tells of, so that there is no change without its event and no event without its change. What was refused, or
changed nothing, is recorded beside the way (see the audit layer of the public API).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from libs.common.ids import new_id_at
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.job import Job, JobState
from services.scheduler.usecases.caller import Caller, OrgScope

_JSON = json.JSONEncoder(ensure_ascii=False)
SCHEDULER_ACTOR = "punctual"
"""The actor of what the scheduler does on its own decision."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One changed field: its proto path, and its values as JSON text, empty where there was or is none."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One mutating call, or one change that the scheduler made by itself. Secrets are masked before they get here."""

    event_id: str
    """Made of `event_time`, so that ids sort by time; fixed once, so that copying an event twice stores it once."""
    event_time: datetime
    org_id: str
    actor: str
    method: str
    object_type: str
    object_id: str
    project_id: str = ""
    changes: Sequence[FieldChange] = ()
    request_id: str = ""
    peer: str = ""
    result: str = "OK"
    note: str = ""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events a list shows; what is empty or None does not restrict."""

    object_type: str = ""
    object_id: str = ""
    actor: str = ""
    method: str = ""
    event_after: datetime | None = None
    event_before: datetime | None = None


class AuditLog(Protocol):
    """The audit events. One writer: the scheduler."""

    async def record(self, event: AuditEvent) -> None:
        """Store an event that no change carries; one that is stored already stays as it is."""
        ...

    async def find_page(self, scope: OrgScope, where: AuditFilter, *, after: str, limit: int) -> Sequence[AuditEvent]:
        """Return events, newest first, that come after the event id `after` (empty: from the start).

        Every event whose change was acknowledged before the call is there.
        """
        ...


@dataclass(frozen=True, slots=True)
class ShownField:
    """A field's value as the audit may show it, JSON text.

    `identity` tells values apart that look the same once masked; it is compared and never stored.
    """

    text: str
    identity: object = None


class JobFields(Protocol):
    """Names a job's fields as callers know them: by proto path, secrets and prompts masked."""

    def outline(self, job: Job) -> Mapping[str, ShownField]:
        """Return what tells a new job: its name, project, schedule and target."""
        ...

    def definition(self, job: Job) -> Mapping[str, ShownField]:
        """Return all that callers write."""
        ...

    def state(self, job: Job) -> Mapping[str, ShownField]:
        """Return where the job stands, and why."""
        ...


@dataclass(frozen=True, slots=True)
class JobAudit:
    """Makes the events of changes of jobs."""

    fields: JobFields

    def created(self, caller: Caller, job: Job) -> AuditEvent:
        """Return the event of a new job; what it leaves out stands in the job itself."""
        fields = self.fields.outline(job)
        return self._event(caller, job, tuple(FieldChange(path, "", fields[path].text) for path in sorted(fields)))

    def changed(self, caller: Caller, before: Job, after: Job, *, note: str = "") -> AuditEvent:
        """Return the event of a change."""
        changes = diff(self.fields.state(before), self.fields.state(after))
        # The definition takes a hundred times longer, and most changes are of the state.
        if before.definition is not after.definition:
            changes += diff(self.fields.definition(before), self.fields.definition(after))
        return self._event(caller, after, changes, note)

    def _event(self, caller: Caller, job: Job, changes: Sequence[FieldChange], note: str = "") -> AuditEvent:
        project_id = job.definition.project_id
        return call_event(caller, job.update_time, "job", job.job_id, project_id=project_id, changes=changes, note=note)


def diff(before: Mapping[str, ShownField], after: Mapping[str, ShownField]) -> tuple[FieldChange, ...]:
    """Return what changed, in the order of the paths."""
    return tuple(
        FieldChange(path, _text(before.get(path)), _text(after.get(path)))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    )


def call_event(
    caller: Caller,
    now: datetime,
    object_type: str,
    object_id: str,
    *,
    project_id: str = "",
    changes: Sequence[FieldChange] = (),
    note: str = "",
    result: str = "OK",
) -> AuditEvent:
    """Return the event of a caller's call; `result` is the reason of the error that it ended with."""
    return AuditEvent(
        event_id=new_id_at(now),
        event_time=now,
        org_id=caller.scope.org_id,
        actor=caller.subject,
        method=caller.method,
        object_type=object_type,
        object_id=object_id,
        project_id=project_id,
        changes=changes,
        request_id=caller.request_id,
        peer=caller.peer,
        result=result,
        note=note,
    )


def stop_event(job: Job, state: JobState, reason: str, note: str, now: datetime) -> AuditEvent:
    """Return the event of the scheduler's decision to stop a job."""
    return AuditEvent(
        event_id=new_id_at(now),
        event_time=truncate_to_millis(now),
        org_id=job.org_id,
        actor=SCHEDULER_ACTOR,
        method=f"job.{state.value.lower()}",
        object_type="job",
        object_id=job.job_id,
        project_id=job.definition.project_id,
        changes=(
            FieldChange("job.state", f'"STATE_{job.state.value}"', f'"STATE_{state.value}"'),
            FieldChange("job.state_reason", "", f'"{reason}"'),
        ),
        note=note,
    )


def show(value: str | int) -> ShownField:
    """Return a value that holds no secret."""
    return ShownField(_JSON.encode(value))


def _text(field: ShownField | None) -> str:
    return field.text if field else ""
