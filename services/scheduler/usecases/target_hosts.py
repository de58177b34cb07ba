"""Shows and steers how target hosts are treated, takes in what executors see of them, and tells attempts their limits.

Executors share what they know about a host under a name that its reset count is part of. A reset therefore needs no
word with them: the next attempts carry the new count, and what was shared under the old one expires unread. Replicas
remember counts for some seconds, so what a reset wakes comes only after that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from libs.common.clock import Clock
from libs.common.errors import AbortedError, ResourceExhaustedError
from libs.common.instants import truncate_to_millis
from services.scheduler.domain.target_host import HostLimits, TargetHost, check_host, check_limits
from services.scheduler.usecases.audit import AuditEvent, ShownField, call_event, diff, show
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.ports.due_nudge import DueNudge
from services.scheduler.usecases.ports.execution_store import ExecutionStore

REMEMBERED_SECONDS = 2.0
"""How long a replica remembers a host's limits and reset count."""
WAKE_AFTER = timedelta(seconds=REMEMBERED_SECONDS + 0.5)
"""How long after a reset what waited continues: by then no replica remembers the old count."""
MAX_LIMITED_HOSTS = 10_000
"""Hosts with limits of their own that an org can have."""
MAX_TRIES = 10

HostKey = tuple[str, str]
"""Org and host."""


class TargetHostStore(Protocol):
    """The target hosts. One writer: the scheduler."""

    async def get(self, org_id: str, host: str) -> TargetHost:
        """Return a host; one that was never seen is a new one."""
        ...

    async def find_page(self, org_id: str, *, after: str, limit: int) -> Sequence[TargetHost]:
        """Return an org's hosts by name, those that come after a host (empty: from the start)."""
        ...

    async def count_limited(self, org_id: str) -> int:
        """Return how many hosts of an org have limits of their own."""
        ...

    async def replace(self, changed: TargetHost, *, audit: AuditEvent | None = None) -> bool:
        """Store limits and reset count; False when a caller changed it since `changed.version` was read."""
        ...

    async def observe(self, hosts: Sequence[TargetHost]) -> None:
        """Store observations; one from before a host's last reset, or older than the stored one, changes nothing."""
        ...


class KnownLimits(Protocol):
    """Reads limits through a cache of `REMEMBERED_SECONDS`."""

    async def load(self, hosts: Collection[HostKey]) -> Mapping[HostKey, TargetHost]:
        """Return hosts, all that are asked for."""
        ...


@dataclass(frozen=True, slots=True)
class ManageTargetHosts:
    """Serves TargetHostService."""

    hosts: TargetHostStore
    executions: ExecutionStore
    nudge: DueNudge
    clock: Clock

    async def list(self, caller: Caller, *, after: str, limit: int) -> Sequence[TargetHost]:
        """Return a page of the org's hosts."""
        return await self.hosts.find_page(caller.scope.org_id, after=after, limit=limit)

    async def set_limits(self, caller: Caller, host: str, limits: HostLimits) -> TargetHost:
        """Set a host's limits.

        Raises:
            InvalidArgumentError: with every violation.
            ResourceExhaustedError: TOO_MANY_TARGET_HOSTS.
            AbortedError: others kept changing it.
        """
        name = check_host(host)
        check_limits(limits)
        org_id = caller.scope.org_id
        for _ in range(MAX_TRIES):
            present = await self.hosts.get(org_id, name)
            if present.limits == limits:
                return present
            if present.limits == HostLimits() and await self.hosts.count_limited(org_id) >= MAX_LIMITED_HOSTS:
                raise ResourceExhaustedError(
                    "TOO_MANY_TARGET_HOSTS",
                    f"the org has {MAX_LIMITED_HOSTS} hosts with limits of their own; return some to the default",
                    metadata={"subject": f"org:{org_id}", "limit": str(MAX_LIMITED_HOSTS)},
                )
            changed = replace(present, limits=limits)
            if await self.hosts.replace(changed, audit=self._event(caller, present, changed)):
                return replace(changed, version=present.version + 1)
        raise _kept_changing()

    async def reset(self, caller: Caller, host: str) -> TargetHost:
        """Forget what executors share about a host, and wake what waits for it.

        If we die between the two, what waits continues at its own time; a repeated call wakes it.

        Raises:
            InvalidArgumentError: the host is none.
            AbortedError: others kept changing it.
        """
        name = check_host(host)
        for _ in range(MAX_TRIES):
            present = await self.hosts.get(caller.scope.org_id, name)
            changed = replace(present, reset_count=present.reset_count + 1, observation=None)
            if await self.hosts.replace(changed, audit=self._event(caller, present, changed)):
                await self._wake(changed)
                return replace(changed, version=present.version + 1)
        raise _kept_changing()

    async def _wake(self, host: TargetHost) -> None:
        wake_time = truncate_to_millis(self.clock.now() + WAKE_AFTER)
        if await self.executions.wake_waiting(host.org_id, host.host, wake_time):
            self.nudge.notify(wake_time)

    def _event(self, caller: Caller, before: TargetHost, after: TargetHost) -> AuditEvent:
        return call_event(
            caller,
            truncate_to_millis(self.clock.now()),
            "target",
            after.host,
            changes=diff(_shown(before), _shown(after)),
        )


def _shown(host: TargetHost) -> Mapping[str, ShownField]:
    return {
        "target_host.max_requests_per_minute": show(host.limits.max_requests_per_minute),
        "target_host.max_concurrent_requests": show(host.limits.max_concurrent_requests),
        "target_host.reset_count": show(host.reset_count),
    }


def _kept_changing() -> AbortedError:
    return AbortedError("CONCURRENT_CHANGE", "the target host kept changing during the call")
