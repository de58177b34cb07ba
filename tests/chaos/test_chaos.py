"""A seeded random mix of faults under load on real servers, judged promise by promise.

`make chaos SEED=n SECONDS=m` repeats a run's choices; without either, a short run of a fixed seed is part of the tests.
Two lanes do faults side by side, one to the service processes and one to the stores, so that faults also overlap.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from pymongo import AsyncMongoClient

from tests.chaos.chaos_load import ChaosLoad
from tests.support.checker import PROMISES, Report, check
from tests.support.cluster import Cluster, open_api
from tests.support.faults import PROCESS_FAULTS, STORE_FAULTS, Fault, NotReachedError, Stage
from tests.support.history import History, mark, read_history
from tests.support.load import wait_final
from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.valkey import ValkeyServer

SEED = int(os.environ.get("CHAOS_SEED", "1"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))
DATABASE = "chaos"
LEASE_SECONDS = 6
"""Longer than a call may take that waits for an election: what is granted must not be stale when it arrives."""
RECURRING = 20
A_MINUTE = 60.0
SETTLE_SECONDS = 120.0
SETTINGS = {
    "PUNCTUAL_LEASE_SECONDS": str(LEASE_SECONDS),
    "PUNCTUAL_CIRCUIT_OPEN_SECONDS": "1",
    "PUNCTUAL_DEFAULT_HOST_CONCURRENT_REQUESTS": "0",
}


# Beyond the faults: starting eleven processes, and settling, on a busy machine.
@pytest.mark.timeout(SECONDS + 400)
async def test_promises_hold_whatever_breaks(tmp_path: Path) -> None:
    async with MongoReplicaSet(tmp_path / "mongo", members=3) as mongo, ValkeyServer(tmp_path / "valkey") as valkey:
        cluster = Cluster(
            tmp_path, mongo.uri, DATABASE, valkey.url, schedulers=2, dispatchers=2, executors=2, **SETTINGS
        )
        try:
            await cluster.start()
            await _run(Stage(mongo, valkey, cluster, LEASE_SECONDS, random.Random(SEED), asyncio.Event()))
        finally:
            await cluster.stop()


async def _run(stage: Stage) -> None:
    done: Counter[str] = Counter()
    async with (
        AsyncMongoClient(f"{stage.mongo.uri}&serverMonitoringMode=poll", retryReads=True) as client,
        open_api(stage.cluster) as api,
    ):
        database = client[DATABASE]
        since = await mark(database)
        load = ChaosLoad(stage.cluster, api, SEED)
        if SECONDS >= A_MINUTE:
            await load.recurring(RECURRING, SECONDS)
        async with asyncio.TaskGroup() as running:
            running.create_task(load.run(stage.load_over))
            deadline = time.monotonic() + SECONDS
            lanes = [
                running.create_task(_lane(stage, name, faults, deadline, done))
                for name, faults in (("process", PROCESS_FAULTS), ("store", STORE_FAULTS))
            ]
            await asyncio.sleep(SECONDS)
            stage.load_over.set()
            await asyncio.wait(lanes)
        await asyncio.gather(*(service.ready() for service in stage.cluster.services))
        await load.reset_bad_host()
        await wait_final(database, len(load.expected), seconds=SETTLE_SECONDS)
        report = await check(
            database,
            stage.cluster.arrivals(),
            load.expected,
            never_twice=load.never_twice,
            deferrable=load.deferrable,
            unacknowledged=load.unacknowledged,
        )
        history = await read_history(database, since)
    _judge(report, history, load, done)


async def _lane(stage: Stage, name: str, faults: Sequence[Fault], deadline: float, done: Counter[str]) -> None:
    """Do one fault after the other, every kind once before any twice, until the deadline."""
    own = Stage(
        stage.mongo,
        stage.valkey,
        stage.cluster,
        stage.lease_seconds,
        random.Random(f"{name}-{SEED}"),
        stage.load_over,
    )
    waiting: list[Fault] = []
    while True:
        await asyncio.sleep(own.chance.uniform(0.3, 2))
        if time.monotonic() >= deadline:
            return
        if not waiting:
            waiting = own.chance.sample(faults, len(faults))
        fault = waiting.pop()
        began = time.monotonic()
        try:
            what = await fault(own)
        except NotReachedError as error:
            _say(f"{fault.__name__}: {error} not reached before the load ended")
            return
        done[fault.__name__] += 1
        _say(f"{fault.__name__}: {what}, healed after {time.monotonic() - began:.1f} s")


def _judge(report: Report, history: History, load: ChaosLoad, done: Counter[str]) -> None:
    report.violations["P2 left a final state"] = history.left_final
    report.violations["P3 went back"] = history.shrunk
    report.violations["P9 unexpected error"] = load.unexpected_errors
    report.violations = {promise: found for promise, found in report.violations.items() if found}
    for promise, meaning in PROMISES.items():
        broken = [f"{kind}: {found[:3]}" for kind, found in report.violations.items() if kind.startswith(promise)]
        _say(f"{promise} {meaning}: {'; '.join(broken) or 'kept'}")
    _say(
        f"seed={SEED} seconds={SECONDS:g} faults={sum(done.values())} {dict(sorted(done.items()))} {report.summary()} "
        f"lost={report.lost} changes={history.changes} errors={dict(load.errors)} "
        f"unacknowledged={len(load.unacknowledged)} "
        f"slowest_create={load.slowest_create:.1f}s"
    )
    assert done, "no fault was done"
    assert report.requests > 0
    report.assert_clean()


def _say(line: str) -> None:
    print(f"chaos: {line}", flush=True)
