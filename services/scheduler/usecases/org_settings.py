"""Shows and changes an org's settings, and holds its quotas.

Quotas are read through a short cache, and jobs are counted through one, too: a quota may be passed by what other
replicas create within seconds. It bounds what an org can do to the others; it is not an account.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from libs.common.clock import Clock
from libs.common.errors import AbortedError, PermissionDeniedError, ResourceExhaustedError
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.org import OPERATOR_FIELDS, OrgSettings, check_org_settings
from services.scheduler.usecases.audit import AuditEvent, ShownField, call_event, diff, show
from services.scheduler.usecases.caller import Caller, Permission

MAX_TRIES = 10
COUNT_SECONDS = 60.0
"""How old the count of an org's jobs may be that has room for more."""

FRESH_SECONDS = 5.0
"""How old it may be where it matters: a large org takes tens of milliseconds to count."""


class OrgSettingsReader(Protocol):
    """Reads settings through a cache of some seconds."""

    async def read(self, org_id: str) -> OrgSettings:
        """Return an org's settings; every org has some."""
        ...


class OrgStore(OrgSettingsReader, Protocol):
    """The orgs' settings. One writer: the scheduler."""

    async def get(self, org_id: str) -> OrgSettings:
        """Return an org's settings as they are stored now."""
        ...

    async def replace(
        self, settings: OrgSettings, written: Collection[str], *, audit: AuditEvent | None = None
    ) -> bool:
        """Store the named fields; False when somebody else wrote since `settings.version` was read."""
        ...


class OrgUsage(Protocol):
    """What an org uses of its quotas."""

    async def job_count(self, org_id: str, max_age_seconds: float) -> int:
        """Return the jobs that are not deleted, counted no longer ago than that."""
        ...

    def add_jobs(self, org_id: str, count: int) -> None:
        """Note that jobs were created, until they are counted anew."""
        ...

    async def stored_bytes(self, org_id: str) -> int:
        """Return the bytes of stored answers, as counted some seconds ago."""
        ...


@dataclass(frozen=True, slots=True)
class OrgUse:
    """An org's settings and what it uses."""

    settings: OrgSettings
    job_count: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class ManageOrgSettings:
    """Serves OrgService."""

    orgs: OrgStore
    usage: OrgUsage
    clock: Clock

    async def get(self, caller: Caller) -> OrgUse:
        """Return the settings of the caller's org, and its use."""
        return await self._with_use(await self.orgs.get(caller.scope.org_id))

    async def update(self, caller: Caller, wanted: OrgSettings, fields: Collection[str]) -> OrgUse:
        """Change the named fields.

        Raises:
            InvalidArgumentError: with every violation.
            PermissionDeniedError: a quota without the scope operator, a setting without org.admin.
            AbortedError: others kept changing them.
        """
        _check_permissions(caller, fields)
        for _ in range(MAX_TRIES):
            present = await self.orgs.get(caller.scope.org_id)
            changed = replace(present, **{field: getattr(wanted, field) for field in fields})
            check_org_settings(changed)
            if changed == present:
                return await self._with_use(present)
            audit = call_event(
                caller,
                truncate_to_millis(self.clock.now()),
                "org",
                present.org_id,
                changes=diff(_shown(present), _shown(changed)),
            )
            if await self.orgs.replace(changed, fields, audit=audit):
                return await self._with_use(changed)
        raise AbortedError("CONCURRENT_CHANGE", "the settings kept changing during the call")

    async def _with_use(self, settings: OrgSettings) -> OrgUse:
        return OrgUse(
            settings,
            await self.usage.job_count(settings.org_id, FRESH_SECONDS),
            await self.usage.stored_bytes(settings.org_id),
        )


@dataclass(frozen=True, slots=True)
class OrgQuotas:
    """Says what an org may have."""

    orgs: OrgSettingsReader
    usage: OrgUsage

    async def room_for_jobs(self, org_id: str, wanted: int) -> int:
        """Return how many of the wanted jobs the org may still have."""
        limit = (await self.orgs.read(org_id)).max_jobs
        room = limit - await self.usage.job_count(org_id, COUNT_SECONDS)
        if room < wanted:
            room = limit - await self.usage.job_count(org_id, FRESH_SECONDS)
        return max(min(room, wanted), 0)

    def note_jobs(self, org_id: str, count: int) -> None:
        """Note that jobs were created."""
        self.usage.add_jobs(org_id, count)

    async def min_interval(self, org_id: str) -> timedelta:
        """Return the shortest time between two fires that a job of the org may have."""
        return (await self.orgs.read(org_id)).min_interval

    async def jobs_exceeded(self, org_id: str) -> ResourceExhaustedError:
        """Return the refusal of a job for which there is no room."""
        limit = (await self.orgs.read(org_id)).max_jobs
        return ResourceExhaustedError(
            "JOB_QUOTA_EXCEEDED",
            f"the org has all of its {limit} jobs; delete some, or ask for a larger quota",
            metadata={"subject": f"org:{org_id}", "limit": str(limit)},
        )


def _check_permissions(caller: Caller, fields: Collection[str]) -> None:
    for field in sorted(fields):
        needed = Permission.OPERATOR if field in OPERATOR_FIELDS else Permission.ORG_ADMIN
        if not caller.may(needed):
            raise PermissionDeniedError(
                "SCOPE_REQUIRED",
                f"changing {field} needs the scope {needed}",
                metadata={"method": caller.method, "scopes": str(needed), "field": field},
            )


def _shown(settings: OrgSettings) -> Mapping[str, ShownField]:
    return {
        "org_settings.job_failed_callback_url": show(settings.job_failed_callback_url),
        "org_settings.max_jobs": show(settings.max_jobs),
        "org_settings.min_interval": show(f"{settings.min_interval.total_seconds():g}s"),
        "org_settings.max_stored_bytes": show(settings.max_stored_bytes),
        "org_settings.max_creates_per_minute": show(settings.max_creates_per_minute),
    }
