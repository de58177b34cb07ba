"""How what belongs to the whole org looks: keys, secrets, audit events, target hosts, settings."""

from __future__ import annotations

from punctual.v1.api_key_pb2 import ApiKey
from punctual.v1.api_key_service_pb2 import CreateApiKeyResponse
from punctual.v1.audit_pb2 import AuditEvent
from punctual.v1.org_pb2 import OrgSettings
from punctual.v1.signing_secret_pb2 import SigningSecret
from punctual.v1.signing_secret_service_pb2 import RotateSigningSecretResponse
from punctual.v1.target_host_pb2 import TargetHost

from libs.client.cli import wording
from libs.client.cli.output import Column, within


def _changes(event: AuditEvent) -> str:
    return "; ".join(
        f"{change.path}: {change.before or wording.NOTHING} -> {change.after or wording.NOTHING}"
        for change in event.changes
    )


def _limit(value: int) -> str:
    return str(value) if value else "default"


KEY_ROW: list[Column[ApiKey]] = [
    Column("key", lambda key: key.key_id),
    Column("name", lambda key: key.name),
    Column("scopes", lambda key: " ".join(key.scopes)),
    Column("projects", lambda key: " ".join(key.project_ids) or "all"),
    Column("created", lambda key: wording.instant(key.create_time)),
    Column("expires", lambda key: wording.instant(key.expire_time)),
    Column("revoked", lambda key: wording.instant(key.revoke_time)),
]

CREATED_KEY_CARD: list[Column[CreateApiKeyResponse]] = [
    *within(lambda answer: answer.api_key, KEY_ROW),
    Column("secret", lambda answer: answer.secret),
]

SECRET_ROW: list[Column[SigningSecret]] = [
    Column("secret", lambda secret: secret.secret_id),
    Column("created", lambda secret: wording.instant(secret.create_time)),
    Column("signs until", lambda secret: wording.instant(secret.expire_time)),
    Column("ends in", lambda secret: secret.hint),
]

ROTATED_CARD: list[Column[RotateSigningSecretResponse]] = [
    *within(lambda answer: answer.signing_secret, SECRET_ROW),
    Column("value", lambda answer: answer.secret),
]

AUDIT_ROW: list[Column[AuditEvent]] = [
    Column("event", lambda event: event.event_id),
    Column("time", lambda event: wording.instant(event.event_time)),
    Column("actor", lambda event: event.actor),
    Column("method", lambda event: event.method),
    Column("object", lambda event: f"{event.object_type} {event.object_id}"),
    Column("result", lambda event: event.result),
    Column("changes", _changes),
    Column("note", lambda event: event.note),
]

HOST_ROW: list[Column[TargetHost]] = [
    Column("host", lambda host: host.host),
    Column("circuit", lambda host: wording.short_name(TargetHost.Circuit.Name(host.circuit), "CIRCUIT_")),
    Column("waits until", lambda host: wording.instant(host.retry_time)),
    Column("reason", lambda host: host.wait_reason or wording.NOTHING),
    Column("per minute", lambda host: _limit(host.max_requests_per_minute)),
    Column("at once", lambda host: _limit(host.max_concurrent_requests)),
]

ORG_CARD: list[Column[OrgSettings]] = [
    Column("org", lambda org: org.org_id),
    Column("jobs", lambda org: f"{org.job_count} of {org.max_jobs}"),
    Column("stored bytes", lambda org: f"{org.stored_bytes} of {org.max_stored_bytes}"),
    Column("creations a minute", lambda org: str(org.max_creates_per_minute)),
    Column("shortest interval", lambda org: wording.span(org.min_interval)),
    Column("told of failed jobs", lambda org: org.job_failed_callback_url or "nobody"),
]
