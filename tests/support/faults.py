"""Faults done to running processes and stores. Each asserts that it bit, heals, and says in few words what it did."""

from __future__ import annotations

import asyncio
import random
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from libs.common.crash_points import CRASH_EXIT_CODE
from tests.support.cluster import Cluster, ServiceProcess
from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.valkey import ValkeyServer

SERVICES = Path(__file__).parents[2] / "services"
CRASH_SECONDS = 60.0
DRAIN_SECONDS = 25.0
OFF_THE_WAY = frozenset({"scheduler.blobs_deleted"})
"""What no fire passes: the removal of large answers together with their executions."""


@dataclass
class Stage:
    """What faults can be done to; the chance is seeded, so that a run can be repeated."""

    mongo: MongoReplicaSet
    valkey: ValkeyServer
    cluster: Cluster
    lease_seconds: float
    chance: random.Random
    load_over: asyncio.Event


Fault = Callable[[Stage], Awaitable[str]]


class NotReachedError(Exception):
    """A crash point was still waited for when the load ended."""


def crash_points() -> list[str]:
    """Return the crash points on the way of a fire: every one in the services' code but those tested elsewhere."""
    sources = (path.read_text(encoding="utf-8") for path in sorted(SERVICES.rglob("*.py")))
    found = {name for source in sources for name in re.findall(r'crash_point\("([a-z_.]+)"\)', source)}
    return sorted(found - OFF_THE_WAY)


async def kill(stage: Stage) -> str:
    """Kill a service process and start it again."""
    service = stage.chance.choice(stage.cluster.services)
    pause = stage.chance.uniform(0.2, 3)
    service.child.kill()
    assert await service.child.wait() == -signal.SIGKILL
    await asyncio.sleep(pause)
    await _start_again(service)
    return f"{service.name} for {pause:.1f} s"


async def freeze(stage: Stage) -> str:
    """Freeze a service process past its lease, and let it go on as a zombie."""
    service = stage.chance.choice(stage.cluster.services)
    pause = stage.lease_seconds + stage.chance.uniform(0.5, 2)
    service.child.suspend()
    try:
        assert not await service.is_ready(), f"{service.name} answers although it is frozen"
        await asyncio.sleep(pause)
    finally:
        service.child.resume()
    await service.ready()
    return f"{service.name} for {pause:.1f} s"


async def restart(stage: Stage) -> str:
    """Stop a service process with SIGTERM and start it again."""
    service = stage.chance.choice(stage.cluster.services)
    await service.child.stop(seconds=DRAIN_SECONDS)
    code = await service.child.wait()
    # 1: it could not hand back in time, as may be while a store is away. Killed would be -9.
    assert code in {0, 1}, f"{service.name} ended with code {code}"
    await _start_again(service)
    return f"{service.name}, code {code}"


async def crash(stage: Stage) -> str:
    """Let a service process die at one of its crash points."""
    name = stage.chance.choice(crash_points())
    group = {"scheduler": stage.cluster.schedulers, "dispatcher": stage.cluster.dispatchers}
    service = stage.chance.choice(group.get(name.partition(".")[0], stage.cluster.executors))
    await service.child.stop(seconds=DRAIN_SECONDS)
    service.start(PUNCTUAL_CRASH_POINT=name)
    await _wait_crash(stage, service, name)
    await _start_again(service)
    return name


async def _wait_crash(stage: Stage, service: ServiceProcess, name: str) -> None:
    died = asyncio.create_task(service.child.wait())
    over = asyncio.create_task(stage.load_over.wait())
    try:
        await asyncio.wait({died, over}, timeout=CRASH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not died.done():
            await service.child.stop(seconds=DRAIN_SECONDS)
            service.start(PUNCTUAL_CRASH_POINT="")
            await service.ready()
            if stage.load_over.is_set():
                raise NotReachedError(name)
            raise AssertionError(f"{name} was not reached within {CRASH_SECONDS:g} s")
        assert died.result() == CRASH_EXIT_CODE, f"{service.name} ended with code {died.result()}, not at {name}"
    finally:
        over.cancel()


async def _start_again(service: ServiceProcess) -> None:
    service.start(PUNCTUAL_CRASH_POINT="")
    await service.ready()


async def flush(stage: Stage) -> str:
    """Make Redis forget everything, a few times."""
    times = stage.chance.randint(1, 4)
    forgotten = 0
    async with Redis.from_url(stage.valkey.url) as redis:
        for _ in range(times):
            keys = await redis.keys("*due*")
            assert keys, "there was no stream to forget"
            forgotten += sum([await redis.xlen(key) for key in keys])
            await redis.flushall()
            await asyncio.sleep(0.5)
            # The readers make group and stream anew; the next round forgets those.
            while not await redis.keys("*due*"):
                await asyncio.sleep(0.05)
    return f"{times} times, {forgotten} entries"


async def kill_valkey(stage: Stage) -> str:
    """Kill Redis and start it again on its data."""
    pause = stage.chance.uniform(0.5, 6)
    stage.valkey.kill()
    assert not stage.valkey.process.running
    await asyncio.sleep(pause)
    await stage.valkey.restart()
    return f"for {pause:.1f} s"


async def freeze_valkey(stage: Stage) -> str:
    """Freeze Redis: connections stay open, and nothing answers."""
    pause = stage.chance.uniform(1, 5)
    stage.valkey.suspend()
    try:
        async with Redis.from_url(stage.valkey.url, socket_timeout=0.3) as redis:
            try:
                await redis.ping()
            except (OSError, TimeoutError, Exception):  # noqa: BLE001 - whichever way it does not answer
                pass
            else:
                raise AssertionError("Redis answers although it is frozen")
        await asyncio.sleep(pause)
    finally:
        stage.valkey.resume()
    return f"for {pause:.1f} s"


async def step_down(stage: Stage) -> str:
    """Make the primary of MongoDB resign."""
    before = await stage.mongo.primary_index()
    await stage.mongo.step_down()
    after = await stage.mongo.primary_index()
    assert after != before, "the primary did not change"
    return f"{before} -> {after}"


async def kill_primary(stage: Stage) -> str:
    """Kill the primary of MongoDB; it comes back when another one is elected."""
    before = await stage.mongo.primary_index()
    pause = stage.chance.uniform(0, 3)
    stage.mongo.kill(before)
    after = await stage.mongo.primary_index()
    assert after != before
    await asyncio.sleep(pause)
    await stage.mongo.restart(before)
    return f"{before} -> {after}"


PROCESS_FAULTS: tuple[Fault, ...] = (kill, freeze, restart, crash, crash)
STORE_FAULTS: tuple[Fault, ...] = (flush, kill_valkey, freeze_valkey, step_down, kill_primary)
