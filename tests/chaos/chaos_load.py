"""The load of a chaos run: jobs of every kind, created all the time, each acknowledged job noted with its fires."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from punctual.v1 import job_pb2, job_service_pb2, schedule_pb2, target_host_service_pb2

from tests.support.checker import Expected, millis
from tests.support.cluster import ORG, Api, Cluster
from tests.support.load import CALL_SECONDS, CREATE_SECONDS, PASSING_ERRORS, one_time_job, soon

BAD_HOST = "127.0.0.2"
CREATES_PER_SECOND = 25
CREATES_UNDER_WAY = 40
"""Above it no further one is begun: a busy machine gets less load, not a heap of calls that all time out."""
MINUTE = timedelta(minutes=1)

# How often, on which host, answered how, and what to do about an unknown outcome.
KINDS: tuple[tuple[int, str, str, job_pb2.OnUnknownOutcome], ...] = (
    (60, "127.0.0.1", "ok", job_pb2.ON_UNKNOWN_OUTCOME_RETRY),
    (15, "127.0.0.1", "slow/800", job_pb2.ON_UNKNOWN_OUTCOME_RETRY),
    (10, "127.0.0.1", "slow/300", job_pb2.ON_UNKNOWN_OUTCOME_FAIL),
    (4, "127.0.0.1", "large/300", job_pb2.ON_UNKNOWN_OUTCOME_RETRY),
    (10, BAD_HOST, "ok", job_pb2.ON_UNKNOWN_OUTCOME_RETRY),
    (8, BAD_HOST, "flaky/1", job_pb2.ON_UNKNOWN_OUTCOME_RETRY),
    (3, BAD_HOST, "close/1", job_pb2.ON_UNKNOWN_OUTCOME_RETRY),
    (2, BAD_HOST, "close/9", job_pb2.ON_UNKNOWN_OUTCOME_FAIL),
    (2, BAD_HOST, "status/503", job_pb2.ON_UNKNOWN_OUTCOME_RETRY),
)


@dataclass
class ChaosLoad:
    """Creates jobs until told to stop, and keeps what was acknowledged."""

    cluster: Cluster
    api: Api
    seed: int
    expected: list[Expected] = field(default_factory=list)
    never_twice: set[str] = field(default_factory=set)
    deferrable: set[str] = field(default_factory=set)
    """Jobs on the host that fails."""
    unacknowledged: list[str] = field(default_factory=list)
    """Names of jobs whose creation was given up: they may exist or not."""
    unexpected_errors: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    slowest_create: float = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Create jobs at an even pace until `stopping`; return when each is acknowledged."""
        chance = random.Random(f"load-{self.seed}")
        number = 0
        under_way = asyncio.Semaphore(CREATES_UNDER_WAY)
        async with asyncio.TaskGroup() as creating:
            while not stopping.is_set():
                for _ in range(CREATES_PER_SECOND // 5):
                    number += 1
                    await under_way.acquire()
                    task = creating.create_task(self._one_time(number, chance))
                    task.add_done_callback(lambda _: under_way.release())
                await asyncio.sleep(0.2)

    async def recurring(self, count: int, seconds: float) -> None:
        """Create jobs that fire each minute until the run ends; their fires are walked here, minute by minute."""
        end = soon(seconds)
        for index in range(count):
            job = job_pb2.Job(
                name=f"minutely-{index}",
                schedule=schedule_pb2.Schedule(
                    cron=schedule_pb2.CronRule(expression="* * * * *"), time_zone="Asia/Kathmandu", end_time=_stamp(end)
                ),
                target=job_pb2.Target(url=self.cluster.target("ok"), prompt="now"),
                overlap_policy=job_pb2.OVERLAP_POLICY_ALLOW,
                max_consecutive_failures=100,
            )
            if index % 2:
                job.schedule.jitter.CopyFrom(Duration(seconds=5))
            stored = await self._create(f"{self.seed}-minutely-{index}", job)
            assert stored is not None
            created = stored.create_time.ToDatetime(tzinfo=UTC)
            fire = created.replace(second=0, microsecond=0) + MINUTE
            while fire <= end:
                self.expected.append(Expected(stored.job_id, millis(fire)))
                fire += MINUTE

    async def reset_bad_host(self) -> None:
        """Close the circuit of the host that fails, which would hold back what is left of its load for minutes."""
        host = self.cluster.target(host=BAD_HOST).split("/")[2]
        request = target_host_service_pb2.ResetTargetHostRequest(host=host)
        await self.api.target_hosts.ResetTargetHost(request, metadata=ORG, timeout=CALL_SECONDS)

    async def _one_time(self, number: int, chance: random.Random) -> None:
        _, host, path, unknown = chance.choices(KINDS, [kind[0] for kind in KINDS])[0]
        at = soon(chance.uniform(0.3, 6))
        job = one_time_job(f"chaos-{number}", self.cluster.target(path, host), at, on_unknown_outcome=unknown)
        job.retry_policy.initial_backoff.CopyFrom(Duration(nanos=300_000_000))
        stored = await self._create(f"{self.seed}-{number}", job)
        if stored is None:
            self.unacknowledged.append(job.name)
            return
        self.expected.append(Expected(stored.job_id, millis(at)))
        if host == BAD_HOST:
            self.deferrable.add(stored.job_id)
        if unknown == job_pb2.ON_UNKNOWN_OUTCOME_FAIL:
            self.never_twice.add(stored.job_id)

    async def _create(self, key: str, job: job_pb2.Job) -> job_pb2.Job | None:
        """Create a job under its idempotency key, and repeat that until it is acknowledged; None: it never was."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        request = job_service_pb2.CreateJobRequest(job=job, idempotency_key=key, allow_duplicate=True)
        while True:
            try:
                answer = await self.api.jobs.CreateJob(request, metadata=ORG, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                self.errors[error.code().name] += 1
                if error.code() not in PASSING_ERRORS:
                    self.unexpected_errors.append(f"{key}: {error.code().name} {error.details()}")
                    raise
                if loop.time() - began > CREATE_SECONDS:
                    return None
                await asyncio.sleep(0.2)
            else:
                self.slowest_create = max(self.slowest_create, loop.time() - began)
                return answer.job


def _stamp(instant: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(instant)
    return stamp
