"""Creates API keys. A key is never more than its creator: no scope and no project that the creator lacks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest

from libs.common.clock import Clock
from libs.common.errors import FieldViolation, InvalidArgumentError, PermissionDeniedError
from libs.common.ids import new_id
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.api_key import SECRET_BYTES, ApiKey, encode_secret, format_token, hash_secret
from services.scheduler.domain.definition_rules import PROJECT_ID, check_length
from services.scheduler.usecases.audit import AuditEvent, call_event, diff, show
from services.scheduler.usecases.caller import Caller, Permission
from services.scheduler.usecases.ports.api_key_store import ApiKeyStore

MAX_NAME = 200
MAX_PROJECTS = 100
MAX_TOLD = 10
"""Unknown scopes that a refusal names: a message has room for hundreds of thousands."""
GRANTABLE = frozenset(Permission) - {Permission.OPERATOR}
"""Whoever names other orgs is made by the installation: by its tokens, or by `services.scheduler.admin`."""


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """What a creator says of a key."""

    name: str
    scopes: frozenset[str]
    project_ids: frozenset[str] | None = None
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class CreatedApiKey:
    """A stored key, and the only appearance of its credential."""

    key: ApiKey
    token: str


@dataclass(frozen=True, slots=True)
class CreateApiKey:
    """Serves CreateApiKey, and the first key of an installation."""

    keys: ApiKeyStore
    clock: Clock
    grantable: frozenset[Permission] = GRANTABLE

    async def __call__(self, caller: Caller, wanted: NewApiKey) -> CreatedApiKey:
        """Create a key in the caller's org.

        Raises:
            InvalidArgumentError: with every violation.
            PermissionDeniedError: a scope or a project that the caller lacks.
        """
        now = truncate_to_millis(self.clock.now())
        violations = list(self._violations(wanted, now))
        if violations:
            raise InvalidArgumentError(violations)
        _check_within_caller(caller, wanted)
        secret = encode_secret(secrets.token_bytes(SECRET_BYTES))
        key = ApiKey(
            key_id=f"pk_{new_id()}",
            org_id=caller.scope.org_id,
            name=wanted.name,
            secret_hash=hash_secret(secret),
            scopes=wanted.scopes,
            create_time=now,
            creator=caller.subject,
            project_ids=wanted.project_ids,
            expire_time=wanted.expire_time,
        )
        await self.keys.insert(key, audit=_event(caller, key, now))
        return CreatedApiKey(key, format_token(key.key_id, secret))

    def _violations(self, wanted: NewApiKey, now: datetime) -> Iterator[FieldViolation]:
        yield from check_length("name", wanted.name, 1, MAX_NAME)
        if not wanted.scopes:
            yield FieldViolation("scopes", "REQUIRED", "must name at least one scope")
        for scope in nsmallest(MAX_TOLD, wanted.scopes - self.grantable):
            yield FieldViolation(
                "scopes", "UNKNOWN_SCOPE", f"{scope[:80]!r} is not one of {', '.join(sorted(self.grantable))}"
            )
        projects = wanted.project_ids or frozenset()
        if len(projects) > MAX_PROJECTS:
            yield FieldViolation("project_ids", "TOO_MANY_PROJECTS", f"{len(projects)} are more than {MAX_PROJECTS}")
        if not all(PROJECT_ID.fullmatch(project) for project in projects):
            yield FieldViolation("project_ids", "INVALID_PROJECT_ID", "must be 1 to 64 characters of a-z, 0-9, - and _")
        if wanted.expire_time is not None and wanted.expire_time <= now:
            yield FieldViolation("expire_time", "TIME_IN_PAST", "must lie in the future")


def _event(caller: Caller, key: ApiKey, now: datetime) -> AuditEvent:
    fields = {
        "api_key.name": show(key.name),
        "api_key.scopes": show(",".join(sorted(key.scopes))),
        "api_key.project_ids": show(",".join(sorted(key.project_ids or ()))),
        "api_key.expire_time": show(key.expire_time.isoformat() if key.expire_time else ""),
    }
    return call_event(caller, now, "api_key", key.key_id, changes=diff({}, fields))


def _check_within_caller(caller: Caller, wanted: NewApiKey) -> None:
    for scope in sorted(wanted.scopes):
        if not caller.may(scope):
            raise PermissionDeniedError(
                "SCOPE_NOT_HELD",
                f"a key cannot have the scope {scope}, which its creator lacks",
                metadata={"scope": scope},
            )
    own = caller.scope.project_ids
    if own is None:
        return
    if wanted.project_ids is None:
        raise PermissionDeniedError(
            "PROJECT_NOT_HELD", "a key cannot cover the whole org, which its creator does not; name projects"
        )
    for project in sorted(wanted.project_ids - own):
        raise PermissionDeniedError(
            "PROJECT_NOT_HELD",
            f"a key cannot cover the project {project!r}, which its creator does not",
            metadata={"project": project},
        )
