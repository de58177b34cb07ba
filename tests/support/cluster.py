"""The three services as processes over given stores, with the handles that fault tests need."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from punctual.v1 import execution_service_pb2_grpc, job_service_pb2_grpc, target_host_service_pb2_grpc

from tests.support.sink import Arrival, read_notes
from tools.devstack.ports import free_ports
from tools.devstack.process import ChildProcess
from tools.devstack.waiting import wait_until


def of_org(org: str) -> tuple[tuple[str, str], ...]:
    """Return the call metadata that names an org where no credential is asked for."""
    return (("x-punctual-org", org),)


ORG = of_org("acme")
LOOPBACK = "127.0.0.1"
READY_SECONDS = 90.0


@dataclass
class ServiceProcess:
    """One service process; its log goes to a file. A killed one can be started again with the same identity."""

    name: str
    module: str
    environment: Mapping[str, str]
    health_port: int
    log: Path
    child: ChildProcess = field(init=False)

    def __post_init__(self) -> None:
        self._given = dict(self.environment)
        self._skewed = False
        self._make()

    def _make(self, *, skew: str = "") -> None:
        argv = [sys.executable, "-m", self.module]
        if skew:
            argv = [sys.executable, "-m", "tests.support.skewed", self.module, skew]
        self.child = ChildProcess(self.name, argv, output=self.log, env=dict(self.environment))

    def start(self, **changes: str) -> None:
        """Start it, perhaps with changed settings."""
        self.environment = {**self.environment, **changes}
        self._make()
        self.child.start()

    def start_skewed(self, seconds: str) -> None:
        """Start it with a clock that is off by that much."""
        self._make(skew=seconds)
        self.child.start()
        self._skewed = True

    async def mend(self) -> None:
        """Bring it back to how it was first started, whatever a test did to it."""
        if self.child.running:
            self.child.resume()
            if self.environment != self._given or self._skewed:
                await self.child.stop(seconds=25)
        if not self.child.running:
            self.environment = dict(self._given)
            self._skewed = False
            self.start()
        await self.ready()

    async def ready(self) -> None:
        """Wait until its health says it is ready."""
        await self.child.wait_ready(self.is_ready, seconds=READY_SECONDS)

    async def is_ready(self) -> bool:
        """Whether its health says it is ready."""
        return await self.health("readiness")

    async def health(self, service: str) -> bool:
        """Whether a named health check says SERVING."""
        async with aio.insecure_channel(f"{LOOPBACK}:{self.health_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Cluster:
    """Schedulers, dispatchers and executors that share one MongoDB and one Redis, and the sink they post to."""

    def __init__(
        self,
        folder: Path,
        mongodb_uri: str,
        database: str,
        redis_url: str,
        *,
        schedulers: int = 1,
        dispatchers: int = 1,
        executors: int = 1,
        for_callers: int = 0,
        **settings: str,
    ) -> None:
        """Take how many schedulers serve callers only, besides those that serve everybody."""
        schedulers += for_callers
        self._folder = folder
        ports = free_ports(2 * schedulers + dispatchers + executors + 1)
        public, internal = ports[:schedulers], ports[schedulers : 2 * schedulers]
        rest = ports[2 * schedulers :]
        internal_target = "ipv4:" + ",".join(f"{LOOPBACK}:{port}" for port in internal[: schedulers - for_callers])
        shared = {
            "PUNCTUAL_MONGODB_URI": mongodb_uri,
            "PUNCTUAL_MONGODB_DATABASE": database,
            "PUNCTUAL_REDIS_URL": redis_url,
            "PUNCTUAL_REDIS_KEY_PREFIX": database,
            "PUNCTUAL_AUTH_MODE": "development",
            "PUNCTUAL_ALLOWED_TARGETS": "127.0.0.0/8,::1/128",
            "PUNCTUAL_LEASE_SECONDS": "3",
            "PUNCTUAL_METRICS_ADDRESS": "",
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
        self.schedulers = [
            self._service(
                f"scheduler-{index}",
                "services.scheduler",
                public[index],
                shared,
                PUNCTUAL_SCHEDULER_PUBLIC_ADDRESS=f"{LOOPBACK}:{public[index]}",
                PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS=f"{LOOPBACK}:{internal[index]}",
            )
            for index in range(schedulers)
        ]
        client = {**shared, "PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS": internal_target}
        self.dispatchers = [
            self._service(
                f"dispatcher-{index}",
                "services.dispatcher",
                port,
                client,
                PUNCTUAL_DISPATCHER_HEALTH_ADDRESS=f"{LOOPBACK}:{port}",
            )
            for index, port in enumerate(rest[:dispatchers])
        ]
        self.executors = [
            self._service(
                f"executor-{index}",
                "services.executor",
                port,
                client,
                PUNCTUAL_EXECUTOR_HEALTH_ADDRESS=f"{LOOPBACK}:{port}",
            )
            for index, port in enumerate(rest[dispatchers:-1])
        ]
        self.public_addresses = [f"{LOOPBACK}:{port}" for port in (public[-for_callers:] if for_callers else public)]
        self._notes = folder / "sink.jsonl"
        self._notes_from = 0
        self._sink_port = rest[-1]
        sink_argv = [sys.executable, "-m", "tests.support.sink", "--port", str(rest[-1]), "--notes", str(self._notes)]
        self._sink = ChildProcess("sink", sink_argv, output=folder / "sink.log")

    def _service(self, name: str, module: str, port: int, shared: Mapping[str, str], **settings: str) -> ServiceProcess:
        return ServiceProcess(name, module, {**shared, **settings}, port, self._folder / f"{name}.log")

    @property
    def services(self) -> list[ServiceProcess]:
        """All service processes."""
        return [*self.schedulers, *self.dispatchers, *self.executors]

    async def start(self) -> None:
        """Start everything and wait until all of it is ready."""
        self._sink.start()
        for service in self.services:
            service.start()
        await asyncio.gather(*(service.ready() for service in self.services))

    async def mend(self) -> None:
        """Bring every service back to how it was first started."""
        await asyncio.gather(*(service.mend() for service in self.services))

    async def stop(self) -> None:
        """Stop everything: clients first, so that they can hand back."""
        for group in ([*self.dispatchers, *self.executors], self.schedulers):
            running = [service.child for service in group if service.child.running]
            for child in running:
                child.resume()
            await asyncio.gather(*(child.stop(seconds=15) for child in running))
        await self._sink.stop()

    def target(self, path: str = "ok", host: str = LOOPBACK) -> str:
        """Return the sink's address for a way to answer, under either of its hosts."""
        return f"http://{host}:{self._sink_port}/{path}"

    def arrivals(self) -> list[Arrival]:
        """Return what the sink has seen."""
        return read_notes(self._notes, self._notes_from)

    def forget_arrivals(self) -> None:
        """Leave out from now on what the sink has seen so far."""
        self._notes_from = self._notes.stat().st_size if self._notes.exists() else 0

    async def wait_arrivals(self, count: int, *, seconds: float = 30) -> None:
        """Wait until the sink has seen that many requests."""

        async def enough() -> bool:
            return len(self.arrivals()) >= count

        await wait_until(enough, seconds=seconds, what=f"{count} requests at the sink")

    def log(self, service: ServiceProcess) -> str:
        """Return what a service has logged."""
        return service.log.read_text() if service.log.exists() else ""


@dataclass(frozen=True, slots=True)
class Api:
    """The public API's stubs on one channel; pass `metadata=ORG`."""

    jobs: job_service_pb2_grpc.JobServiceAsyncStub
    executions: execution_service_pb2_grpc.ExecutionServiceAsyncStub
    target_hosts: target_host_service_pb2_grpc.TargetHostServiceAsyncStub


@asynccontextmanager
async def open_api(cluster: Cluster) -> AsyncIterator[Api]:
    """Open the public API, balanced over the schedulers."""
    target = "ipv4:" + ",".join(cluster.public_addresses)
    options = [("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')]
    async with aio.insecure_channel(target, options=options) as channel:
        yield Api(
            job_service_pb2_grpc.JobServiceStub(channel),
            execution_service_pb2_grpc.ExecutionServiceStub(channel),
            target_host_service_pb2_grpc.TargetHostServiceStub(channel),
        )
