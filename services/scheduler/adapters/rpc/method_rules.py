"""What each public method asks of its caller: one table, and what is not in it is refused.

A permission alone is not the whole rule: methods that concern the org as such (its settings, its secrets, its audit)
are closed to credentials that cover only some of its projects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.scheduler.usecases.caller import Permission


@dataclass(frozen=True, slots=True)
class MethodRule:
    """The permissions of which the caller needs one, and whether its credential must cover the whole org."""

    any_of: frozenset[Permission]
    whole_org: bool = False


_SERVICES: Mapping[str, Mapping[MethodRule, tuple[str, ...]]] = {
    "JobService": {
        MethodRule(frozenset({Permission.JOBS_READ})): ("GetJob", "ListJobs", "PreviewSchedule"),
        MethodRule(frozenset({Permission.JOBS_WRITE})): (
            "CreateJob",
            "BatchCreateJobs",
            "UpdateJob",
            "DeleteJob",
            "PauseJob",
            "ResumeJob",
            "BulkPauseJobs",
            "BulkResumeJobs",
            "RunJob",
        ),
        MethodRule(frozenset({Permission.EXECUTIONS_READ})): ("ExplainJob",),
    },
    "ExecutionService": {
        MethodRule(frozenset({Permission.EXECUTIONS_READ})): ("GetExecution", "ListExecutions", "WatchExecutions"),
        MethodRule(frozenset({Permission.EXECUTIONS_CONTENT})): ("DownloadResponse",),
        MethodRule(frozenset({Permission.JOBS_WRITE})): ("CancelExecution", "RetryExecution"),
    },
    "ApiKeyService": {
        MethodRule(frozenset({Permission.KEYS_ADMIN})): ("CreateApiKey", "ListApiKeys", "RevokeApiKey"),
    },
    "AuditService": {
        MethodRule(frozenset({Permission.AUDIT_READ}), whole_org=True): ("ListAuditEvents",),
    },
    "SigningSecretService": {
        MethodRule(frozenset({Permission.ORG_ADMIN}), whole_org=True): (
            "RotateSigningSecret",
            "ListSigningSecrets",
            "RevokeSigningSecret",
        ),
    },
    "OrgService": {
        MethodRule(frozenset({Permission.JOBS_READ})): ("GetOrgSettings",),
        # Quotas within them are the operator's; the use case looks at each field.
        MethodRule(frozenset({Permission.ORG_ADMIN, Permission.OPERATOR}), whole_org=True): ("UpdateOrgSettings",),
    },
    "TargetHostService": {
        MethodRule(frozenset({Permission.JOBS_READ}), whole_org=True): ("ListTargetHosts",),
        MethodRule(frozenset({Permission.ORG_ADMIN, Permission.OPERATOR}), whole_org=True): (
            "ResetTargetHost",
            "SetTargetHostLimit",
        ),
    },
}

OPEN_METHODS = frozenset(
    {
        # Probes have no credential, and learn nothing but up or down.
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.health.v1.Health/List",
        # Tells what the published protos tell; served at all only where the settings say so.
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)
"""What anybody may call."""


def _by_full_name() -> Iterator[tuple[str, MethodRule]]:
    for service, rules in _SERVICES.items():
        for rule, methods in rules.items():
            for method in methods:
                yield f"/punctual.v1.{service}/{method}", rule


PUBLIC_RULES: Mapping[str, MethodRule] = dict(_by_full_name())
"""The rule of each public method by its full name."""
