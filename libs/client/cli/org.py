"""`punctual keys`, `secrets`, `audit`, `targets` and `org`: what belongs to the whole org."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from punctual.v1.org_pb2 import OrgSettings

from libs.client.cli.flag_values import moment, optional_span
from libs.client.cli.listing import Limit, listed
from libs.client.cli.org_views import (
    AUDIT_ROW,
    CREATED_KEY_CARD,
    HOST_ROW,
    KEY_ROW,
    ORG_CARD,
    ROTATED_CARD,
    SECRET_ROW,
)
from libs.client.cli.session import Session
from libs.client.timestamps import duration

SHOWN_ONCE = "This is shown once and never again."
Host = Annotated[str, typer.Argument(help="Host and port, such as api.example.com:443.", metavar="HOST:PORT")]


async def create_key(
    session: Session,
    name: Annotated[str, typer.Option(help="What people call it.")],
    scope: Annotated[list[str], typer.Option(help="What it may do, such as jobs.read; may be repeated.")],
    project: Annotated[list[str] | None, typer.Option(help="Only this project; may be repeated.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends: RFC 3339, or +90d.", metavar="TIME")] = None,
) -> None:
    """Create an API key and show its secret, once."""
    created = await session.client.api_keys.create(
        name, scopes=scope, project_ids=project or [], expire_time=moment(expires, "--expires")
    )
    session.printer.show(created, CREATED_KEY_CARD)
    session.printer.remark(SHOWN_ONCE)


async def list_keys(
    session: Session,
    show_revoked: Annotated[bool, typer.Option("--revoked", help="Revoked ones too.")] = False,
    limit: Limit = 50,
) -> None:
    """List API keys, newest first."""
    keys = session.client.api_keys.list(show_revoked=show_revoked, page_size=listed(limit))
    await session.printer.show_all(keys, KEY_ROW, limit=limit)


async def revoke_key(session: Session, keys: Annotated[list[str], typer.Argument(metavar="KEY...")]) -> None:
    """Revoke API keys; they stop to work within seconds."""
    await session.for_each(keys, session.client.api_keys.revoke, KEY_ROW)


async def rotate_secret(
    session: Session,
    overlap: Annotated[str | None, typer.Option(help="How long the old one signs too, 24h.", metavar="SPAN")] = None,
) -> None:
    """Create a signing secret that replaces the current one, and show it, once."""
    rotated = await session.client.signing_secrets.rotate(overlap=optional_span(overlap, "--overlap"))
    session.printer.show(rotated, ROTATED_CARD)
    session.printer.remark(SHOWN_ONCE)


async def list_secrets(session: Session) -> None:
    """List the live signing secrets."""
    session.printer.show_list(await session.client.signing_secrets.list(), SECRET_ROW)


async def revoke_secret(session: Session, secrets: Annotated[list[str], typer.Argument(metavar="SECRET...")]) -> None:
    """End signing secrets at once."""
    await session.for_each(secrets, session.client.signing_secrets.revoke, SECRET_ROW)


@dataclass(frozen=True)
class AuditFilter:
    """Which audit events are listed."""

    object_type: Annotated[str, typer.Option(help="Only this kind of object, such as job.")] = ""
    object_id: Annotated[str, typer.Option(help="Only this object.")] = ""
    actor: Annotated[str, typer.Option(help="Only what this caller did.")] = ""
    method: Annotated[str, typer.Option(help="Only this method, such as JobService.PauseJob.")] = ""
    since: Annotated[str | None, typer.Option(help="From then on: RFC 3339, or 2h ago.", metavar="TIME")] = None
    until: Annotated[str | None, typer.Option(help="Before: RFC 3339, or 2h ago.", metavar="TIME")] = None


async def list_audit(session: Session, only: AuditFilter, limit: Limit = 50) -> None:
    """List who changed what, newest first."""
    events = session.client.audit.list(
        object_type=only.object_type,
        object_id=only.object_id,
        actor=only.actor,
        method=only.method,
        event_after=moment(only.since, "--since"),
        event_before=moment(only.until, "--until"),
        page_size=listed(limit),
    )
    await session.printer.show_all(events, AUDIT_ROW, limit=limit)


async def list_targets(session: Session, limit: Limit = 50) -> None:
    """List the hosts that the jobs call, with their limits and circuits."""
    hosts = session.client.target_hosts.list(page_size=listed(limit))
    await session.printer.show_all(hosts, HOST_ROW, limit=limit)


async def reset_target(session: Session, host: Host) -> None:
    """Close a host's circuit, forget its rate limit, and wake what waits for it."""
    session.printer.show(await session.client.target_hosts.reset(host), HOST_ROW)


async def limit_target(
    session: Session,
    host: Host,
    per_minute: Annotated[int, typer.Option(min=0, max=600_000, help="Requests in a minute; 0: the default.")] = 0,
    concurrent: Annotated[int, typer.Option(min=0, max=10_000, help="Requests at the same time; 0: the default.")] = 0,
) -> None:
    """Set both limits of a host: one that is left out returns to the default."""
    limited = await session.client.target_hosts.set_limit(
        host, max_requests_per_minute=per_minute, max_concurrent_requests=concurrent
    )
    session.printer.show(limited, HOST_ROW)


async def show_org(session: Session) -> None:
    """Show the org's settings, quotas and use."""
    session.printer.show(await session.client.org.get(), ORG_CARD)


@dataclass(frozen=True)
class OrgFlags:
    """Which settings are changed; all but the first need the scope operator."""

    job_failed_callback_url: Annotated[str | None, typer.Option(help="Who is told when a job fails; '': nobody.")] = (
        None
    )
    max_jobs: Annotated[int | None, typer.Option(min=0, max=10_000_000, help="The most jobs.")] = None
    min_interval: Annotated[
        str | None, typer.Option(help="The shortest time between two fires, 1m.", metavar="SPAN")
    ] = None
    max_stored_bytes: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="The most bytes of stored answers.")
    ] = None
    max_creates_per_minute: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Job creations a minute.")
    ] = None


async def set_org(session: Session, flags: OrgFlags) -> None:
    """Change settings of the org."""
    settings = OrgSettings(
        job_failed_callback_url=flags.job_failed_callback_url or "",
        max_jobs=flags.max_jobs or 0,
        min_interval=duration(optional_span(flags.min_interval, "--min-interval")),
        max_stored_bytes=flags.max_stored_bytes or 0,
        max_creates_per_minute=flags.max_creates_per_minute or 0,
    )
    # The flags are named like the fields, so those that were given are the mask.
    mask = [name for name, value in vars(flags).items() if value is not None]
    if not mask:
        raise typer.BadParameter("give at least one flag that says what to change")
    session.printer.show(await session.client.org.update(settings, update_mask=mask), ORG_CARD)
