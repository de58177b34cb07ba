"""Who calls, as the use cases see it: authentication makes a `Caller`, and every query of data asks for its scope."""

from __future__ import annotations

from dataclasses import dataclass


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
