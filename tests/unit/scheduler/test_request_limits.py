"""Request limits: how much is let through, by whom, and when a refused caller may come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta

import pytest

from libs.common.errors import ResourceExhaustedError
from libs.common.testing.fake_clock import FakeClock
from services.scheduler.domain.org import OrgSettings
from services.scheduler.usecases.caller import Caller, OrgScope
from services.scheduler.usecases.request_limits import Limits, RequestLimits

ALL = Limits(calls=120, creates=10, batch_creates=1000)


class Windows:
    """Implements `Windows` for one minute that begins with the first take."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._ends: dict[str, datetime] = {}
        self.counts: Counter[str] = Counter()
        self.takes = 0

    async def take(self, key: str, limit: int, cost: int) -> bool:
        self.takes += 1
        await asyncio.sleep(0)
        if self._clock.now() >= self._ends.get(key, self._clock.now()):
            self._ends[key] = self._clock.now() + timedelta(minutes=1)
            self.counts[key] = 0
        if self.counts[key] + cost > limit:
            return False
        self.counts[key] += cost
        return True

    async def end_time(self, key: str, limit: int) -> datetime:
        return self._ends[key]


class Orgs:
    async def read(self, org_id: str) -> OrgSettings:
        creates = 3 if org_id == "small" else 10
        return OrgSettings(org_id, max_jobs=1, max_stored_bytes=1, max_creates_per_minute=creates)


class Bench:
    def __init__(self, limits: Limits = ALL) -> None:
        self.clock = FakeClock()
        self.windows = Windows(self.clock)
        self.limits = self.replica(limits)

    def replica(self, limits: Limits = ALL) -> RequestLimits:
        return RequestLimits(self.windows, Orgs(), self.clock, limits)


def caller(org_id: str = "acme", subject: str = "pk_1") -> Caller:
    return Caller(subject, OrgScope(org_id), frozenset())


async def calls_until_refused(limits: RequestLimits, who: Caller) -> int:
    for passed in range(10_000):
        try:
            await limits.charge_call(who)
        except ResourceExhaustedError:
            return passed
    raise AssertionError("never refused")


async def test_a_caller_gets_its_limit_and_then_the_time_to_come_back():
    bench = Bench()
    assert await calls_until_refused(bench.limits, caller()) == 120
    await bench.clock.advance(15)
    with pytest.raises(ResourceExhaustedError) as refused:
        await bench.limits.charge_call(caller())
    assert refused.value.reason == "CALL_RATE_EXCEEDED"
    assert refused.value.retry_after_seconds == 45
    await bench.clock.advance(45)
    await bench.limits.charge_call(caller())


async def test_calls_are_taken_in_blocks_and_a_refused_caller_costs_nothing():
    bench = Bench()
    await calls_until_refused(bench.limits, caller())
    assert bench.windows.takes == 61
    for _ in range(100):
        with pytest.raises(ResourceExhaustedError):
            await bench.limits.charge_call(caller())
    assert bench.windows.takes == 61


async def test_calls_at_one_time_share_blocks():
    bench = Bench()
    await asyncio.gather(*(bench.limits.charge_call(caller()) for _ in range(50)))
    assert bench.windows.takes == 25
    assert sum(bench.windows.counts.values()) == 50


async def test_of_calls_at_one_time_no_more_pass_than_the_limit_allows():
    bench = Bench()
    ends = await asyncio.gather(*(bench.limits.charge_call(caller()) for _ in range(200)), return_exceptions=True)
    assert sum(end is None for end in ends) == 120
    assert {end.reason for end in ends if isinstance(end, ResourceExhaustedError)} == {"CALL_RATE_EXCEEDED"}


async def test_callers_do_not_use_up_each_others_limits():
    bench = Bench()
    await calls_until_refused(bench.limits, caller())
    await bench.limits.charge_call(caller(subject="pk_2"))
    await bench.limits.charge_call(caller(org_id="other"))


async def test_replicas_share_a_limit_to_within_a_block_each():
    bench = Bench()
    first, second = bench.replica(), bench.replica()
    await first.charge_call(caller())
    passed = await calls_until_refused(second, caller())
    assert 120 - 2 <= 1 + passed <= 120


async def test_the_rest_of_a_block_is_not_carried_into_the_next_minute():
    bench = Bench()
    await bench.limits.charge_call(caller())
    await bench.clock.advance(61)
    assert await calls_until_refused(bench.limits, caller()) == 120


async def test_creations_are_limited_for_the_org_whoever_creates():
    bench = Bench()
    for number in range(10):
        await bench.limits.charge_create(caller(subject=f"pk_{number}"))
    with pytest.raises(ResourceExhaustedError) as refused:
        await bench.limits.charge_create(caller(subject="pk_99"))
    assert (refused.value.reason, refused.value.metadata["limit"]) == ("CREATE_RATE_EXCEEDED", "10")


async def test_an_org_may_be_granted_another_number():
    bench = Bench()
    for _ in range(3):
        await bench.limits.charge_create(caller("small"))
    with pytest.raises(ResourceExhaustedError):
        await bench.limits.charge_create(caller("small"))


async def test_a_batch_costs_its_size_out_of_its_own_budget():
    bench = Bench()
    await bench.limits.charge_batch(caller(), 700)
    with pytest.raises(ResourceExhaustedError) as refused:
        await bench.limits.charge_batch(caller(), 400)
    assert refused.value.reason == "BATCH_CREATE_RATE_EXCEEDED"
    await bench.limits.charge_batch(caller(), 300)
    await bench.limits.charge_create(caller())


async def test_without_limits_nothing_is_counted():
    bench = Bench(Limits(None, None, None))
    for _ in range(1000):
        await bench.limits.charge_call(caller())
    await bench.limits.charge_create(caller())
    await bench.limits.charge_batch(caller(), 1000)
    assert bench.windows.takes == 0


async def test_a_replica_forgets_the_longest_silent_caller(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.scheduler.usecases.request_limits.MAX_REMEMBERED", 2)
    bench = Bench()
    for number in range(5):
        await bench.limits.charge_call(caller(subject=f"pk_{number}"))
    assert len(bench.limits._blocks) == 2
