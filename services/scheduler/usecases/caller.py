"""Who calls, as the use cases see it: authentication makes a `Caller`, and every query of data asks for its scope."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

ORG_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What an org may be called."""


class Permission(enum.StrEnum):
    """What a credential may allow; tokens and API keys call these their scopes. None of them includes another."""

    JOBS_READ = "jobs.read"
    JOBS_WRITE = "jobs.write"
    EXECUTIONS_READ = "executions.read"
    EXECUTIONS_CONTENT = "executions.content"
    """See prompts, bodies and answers; without it they are masked."""
    AUDIT_READ = "audit.read"
    KEYS_ADMIN = "keys.admin"
    ORG_ADMIN = "org.admin"
    OPERATOR = "operator"
    """Name another org than the credential's own. What may be done there, the other permissions say."""


@dataclass(frozen=True, slots=True)
class OrgScope:
    """The data a query may touch: one org, and in it all projects (None) or the named ones."""

    org_id: str
    project_ids: frozenset[str] | None = None

    def allows(self, project_id: str) -> bool:
        """Whether the project lies within the scope."""
        return self.project_ids is None or project_id in self.project_ids


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: its subject (for the audit), the data it may touch, and what it may do there."""

    subject: str
    scope: OrgScope
    permissions: frozenset[str]
    peer: str = ""
    request_id: str = ""
    method: str = ""
    """What was called, such as `JobService.PauseJob`."""

    def may(self, permission: str) -> bool:
        """Whether the caller has the permission, such as `executions.content`."""
        return permission in self.permissions
