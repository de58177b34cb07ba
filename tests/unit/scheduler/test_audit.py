"""Audit events: what changed is told by proto paths, and no secret or prompt is told at all."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, time

import pytest

from services.scheduler.adapters.rpc.audit_fields import ProtoJobFields
from services.scheduler.adapters.rpc.audit_layer import MUTATING_METHODS
from services.scheduler.adapters.rpc.method_rules import PUBLIC_RULES
from services.scheduler.domain.job import Body, Header, Job, JobDefinition, JobState, Target
from services.scheduler.domain.schedule import Daily, Schedule
from services.scheduler.usecases.audit import (
    SCHEDULER_ACTOR,
    AuditEvent,
    FieldChange,
    JobAudit,
    ShownField,
    diff,
    show,
    stop_event,
)
from services.scheduler.usecases.caller import Caller, OrgScope

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
CALLER = Caller(
    "pk_1", OrgScope("acme"), frozenset(), peer="ipv4:10.0.0.1:5", request_id="r-1", method="JobService.UpdateJob"
)
AUDIT = JobAudit(ProtoJobFields())


def job(**changes: object) -> Job:
    target = Target(
        "https://api.example.com/v1?key=1",
        "say hello",
        headers=(Header("authorization", "Bearer s3cret", sensitive=True), Header("x-team", "blue")),
        body=Body(template='{"p": "{{prompt}}"}'),
    )
    definition = JobDefinition("daily", Schedule(Daily(time(9, 0))), target, labels={"team": "blue"})
    known = Job("01J", "acme", definition, NOW, NOW, "pk_1")
    return replace(known, **changes)


def with_target(before: Job, **changes: object) -> Job:
    target = replace(before.definition.target, **changes)
    return replace(before, definition=replace(before.definition, target=target), revision=before.revision + 1)


def changes_of(event: AuditEvent) -> dict[str, tuple[str, str]]:
    return {change.path: (change.before, change.after) for change in event.changes}


def test_diff_tells_changed_added_and_removed_fields_in_order_of_paths():
    before = {"b": show("1"), "c": show(2), "d": show("same")}
    after = {"a": show("new"), "b": show("2"), "d": show("same")}
    assert diff(before, after) == (
        FieldChange("a", "", '"new"'),
        FieldChange("b", '"1"', '"2"'),
        FieldChange("c", "2", ""),
    )


def test_diff_sees_what_looks_the_same_once_masked():
    before, after = {"secret": ShownField('"***"', "old")}, {"secret": ShownField('"***"', "new")}
    assert diff(before, after) == (FieldChange("secret", '"***"', '"***"'),)


def test_event_tells_who_did_what_from_where():
    event = AUDIT.changed(CALLER, job(), job(state=JobState.PAUSED), note="lunch")
    assert (event.actor, event.method, event.peer, event.request_id) == (
        "pk_1",
        "JobService.UpdateJob",
        "ipv4:10.0.0.1:5",
        "r-1",
    )
    assert (event.org_id, event.project_id, event.object_type, event.object_id) == ("acme", "default", "job", "01J")
    assert (event.result, event.note, event.event_time) == ("OK", "lunch", NOW)
    assert changes_of(event) == {"job.state": ('"STATE_ACTIVE"', '"STATE_PAUSED"')}


def test_changed_schedule_is_told_by_its_proto_path():
    before = job()
    definition = replace(before.definition, schedule=Schedule(Daily(time(10, 30)), "Europe/Berlin"))
    event = AUDIT.changed(CALLER, before, replace(before, definition=definition))
    assert changes_of(event) == {
        "job.schedule.daily.time": ('"09:00"', '"10:30"'),
        "job.schedule.time_zone": ('"UTC"', '"Europe/Berlin"'),
    }


def test_changed_secret_is_told_without_either_value():
    before = job()
    headers = (Header("authorization", "Bearer n3w", sensitive=True), Header("x-team", "blue"))
    (change,) = AUDIT.changed(CALLER, before, with_target(before, headers=headers)).changes
    assert change.path == "job.target.headers"
    shown = [{"name": "authorization", "value": "********"}, {"name": "x-team", "value": "blue"}]
    assert json.loads(change.before) == json.loads(change.after) == shown


def test_sealed_secret_that_is_kept_is_no_change():
    sealed = (Header("authorization", "", sensitive=True, sealed="k1.abc"),)
    before = with_target(job(), headers=sealed)
    event = AUDIT.changed(CALLER, before, with_target(before, url="https://other.example.com/"))
    assert list(changes_of(event)) == ["job.target.url"]


@pytest.mark.parametrize("change", [{"prompt": "tell all"}, {"body": Body(template='{"q": "{{prompt}}"}')}])
def test_changed_content_is_told_by_its_length(change: dict[str, object]):
    before = job()
    event = AUDIT.changed(CALLER, before, with_target(before, **change))
    (told,) = event.changes
    assert told.path in {"job.target.prompt", "job.target.body.template"}
    assert "characters" in told.before
    assert "characters" in told.after


def test_no_secret_and_no_content_is_in_the_event_of_a_new_job():
    event = AUDIT.created(CALLER, job())
    text = repr(event)
    for hidden in ("s3cret", "say hello", "{{prompt}}"):
        assert hidden not in text
    assert changes_of(event)["job.name"] == ("", '"daily"')


def test_scheduler_is_the_actor_of_its_own_decisions():
    event = stop_event(job(), JobState.FAILED, "CONSECUTIVE_FAILURES", "5 in a row", NOW)
    assert (event.actor, event.method, event.note) == (SCHEDULER_ACTOR, "job.failed", "5 in a row")


def test_every_method_without_the_mark_of_a_read_is_audited():
    reads = {"Get", "List", "Watch", "Download", "Preview", "Explain"}
    for method in PUBLIC_RULES:
        name = method.rpartition("/")[2]
        is_read = any(name.startswith(read) for read in reads)
        assert (method in MUTATING_METHODS) is not is_read, method
