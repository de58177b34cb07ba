"""Limits of target hosts: an org has so many hosts with limits of its own, and may change those that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from libs.common.errors import ResourceExhaustedError
from services.scheduler.domain.target_host import HostLimits, TargetHost
from services.scheduler.usecases.audit import AuditEvent
from services.scheduler.usecases.target_hosts import MAX_LIMITED_HOSTS, ManageTargetHosts
from tests.support.scheduler_values import CALLER, SCOPE
from tests.support.scheduler_world import World

KNOWN, NEW = "known.example:443", "new.example:443"
LIMITS = HostLimits(max_requests_per_minute=60)


class FullOrg:
    """Implements `TargetHostStore` of an org with all the limited hosts that it may have, of which one is known."""

    def __init__(self) -> None:
        self.hosts = {KNOWN: TargetHost(SCOPE.org_id, KNOWN, LIMITS)}

    async def get(self, org_id: str, host: str) -> TargetHost:
        return self.hosts.get(host) or TargetHost(org_id, host)

    async def find_page(self, org_id: str, *, after: str, limit: int) -> Sequence[TargetHost]:
        return list(self.hosts.values())

    async def count_limited(self, org_id: str) -> int:
        return MAX_LIMITED_HOSTS

    async def replace(self, changed: TargetHost, *, audit: AuditEvent | None = None) -> bool:
        self.hosts[changed.host] = changed
        return True

    async def observe(self, hosts: Sequence[TargetHost]) -> None:
        return


@pytest.fixture
def manage(world: World) -> ManageTargetHosts:
    return ManageTargetHosts(FullOrg(), world.executions, world.nudge, world.clock)


async def test_one_host_more_is_refused(manage: ManageTargetHosts) -> None:
    with pytest.raises(ResourceExhaustedError) as raised:
        await manage.set_limits(CALLER, NEW, LIMITS)
    assert raised.value.reason == "TOO_MANY_TARGET_HOSTS"
    assert (await manage.set_limits(CALLER, NEW, HostLimits())).limits == HostLimits()


async def test_the_limits_of_a_host_that_has_some_can_be_changed(manage: ManageTargetHosts) -> None:
    tighter = replace(LIMITS, max_concurrent_requests=1)
    assert (await manage.set_limits(CALLER, KNOWN, tighter)).limits == tighter
    assert (await manage.set_limits(CALLER, KNOWN, HostLimits())).limits == HostLimits()
