"""Gathers what granted attempts carry beside their executions and jobs: a batch at a time, never one by one.

If this fails, the grants stand, and the executor gets them by repeating its call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.common.value_type import value_type
from services.scheduler.domain.request_body import names_previous_success
from services.scheduler.domain.target_host import HostLimits
from services.scheduler.domain.target_url import split_target_url
from services.scheduler.usecases.begin_attempts import GrantedAttempt
from services.scheduler.usecases.ports.execution_store import ExecutionStore
from services.scheduler.usecases.signing_secrets import SigningKeys
from services.scheduler.usecases.target_hosts import HostKey, KnownLimits


@value_type
class GrantDetails:
    """What one attempt carries."""

    signing_keys: Sequence[bytes]
    """Newest first; none: the request goes unsigned."""
    host_limits: HostLimits
    """The defaults filled in; 0 does not limit."""
    host_generation: int
    previous_success_time: datetime | None
    """The fire time of the job's latest success, where the body names it."""


@dataclass(frozen=True, slots=True)
class DescribeGrants:
    """Serves the executors' begin and poll calls, after the grants are written."""

    signing_keys: SigningKeys
    target_hosts: KnownLimits
    default_limits: HostLimits
    executions: ExecutionStore

    async def __call__(self, granted: Sequence[GrantedAttempt]) -> Sequence[GrantDetails]:
        """Return the details of attempts, in their order."""
        if not granted:
            return []
        keys = await self.signing_keys.load({item.execution.org_id for item in granted})
        targets = [_host_key(item) for item in granted]
        hosts = await self.target_hosts.load(set(targets))
        asking = {item.job.job_id for item in granted if names_previous_success(item.job.definition.target)}
        successes = await self.executions.last_success_times(asking) if asking else {}
        return [
            GrantDetails(
                signing_keys=keys.get(item.execution.org_id, ()),
                host_limits=hosts[target].limits.over(self.default_limits),
                host_generation=hosts[target].reset_count,
                previous_success_time=successes.get(item.job.job_id),
            )
            for item, target in zip(granted, targets, strict=True)
        ]


def _host_key(granted: GrantedAttempt) -> HostKey:
    return granted.execution.org_id, split_target_url(granted.job.definition.target.url).host_port
