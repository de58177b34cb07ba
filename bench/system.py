"""The system under measurement: real stores, the three services, and the sink, each a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpc import aio
from punctual.internal.v1 import dispatch_service_pb2_grpc
from punctual.v1 import execution_service_pb2_grpc, job_service_pb2_grpc
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from bench.notes import Sink, running_sink
from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.ports import LOOPBACK, free_ports, is_listening
from tools.devstack.process import ChildProcess
from tools.devstack.valkey import ValkeyServer

ORG = (("x-punctual-org", "bench"),)
DATABASE = "bench"
CACHE_GIGABYTES = 1.0
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_PROGRAMS = ("PATH", "HOME", "PUNCTUAL_MONGOD", "PUNCTUAL_VALKEY", "PYTHONPATH")
"""What services may know of our own environment: where programs are, and nothing that changes how they behave."""


@dataclass(frozen=True)
class System:
    """A running system and the handles that scenarios need."""

    database: AsyncDatabase[dict[str, Any]]
    mongodb_uri: str
    jobs: job_service_pb2_grpc.JobServiceAsyncStub
    executions: execution_service_pb2_grpc.ExecutionServiceAsyncStub
    dispatch: dispatch_service_pb2_grpc.DispatchServiceAsyncStub
    sink: Sink
    processes: Mapping[str, ChildProcess]

    @property
    def pids(self) -> dict[str, int]:
        """The processes whose CPU counts: services and stores, not the sink."""
        return {name: process.pid for name, process in self.processes.items()}

    async def clear(self) -> None:
        """Forget all jobs and executions, for the next scenario on the same system."""
        for name in ("jobs", "executions"):
            await self.database[name].delete_many({})
        await self.sink.take_notes()


def service_environment(redis_url: str) -> dict[str, str]:
    """Return what every service is started with."""
    return {
        **{name: os.environ[name] for name in _PROGRAMS if name in os.environ},
        "PUNCTUAL_REDIS_URL": redis_url,
        "PUNCTUAL_ALLOWED_TARGETS": "127.0.0.0/8",
        "PUNCTUAL_METRICS_ADDRESS": f"{LOOPBACK}:0",
        "PUNCTUAL_LOG_LEVEL": "WARNING",
    }


@asynccontextmanager
async def running_system(
    folder: Path, *, executors: int = 1, settings: Mapping[str, str] | None = None
) -> AsyncIterator[System]:
    """Start everything in an empty folder, and stop it afterwards."""
    async with AsyncExitStack() as stack:
        mongo = await stack.enter_async_context(MongoReplicaSet(folder / "mongod", cache_gigabytes=CACHE_GIGABYTES))
        valkey = await stack.enter_async_context(ValkeyServer(folder / "valkey"))
        sink = await stack.enter_async_context(running_sink(folder))
        # Once the stores and the sink have theirs, which might choose the same ones.
        public, internal, dispatcher, *executor_ports = free_ports(3 + executors)
        environment = {
            **service_environment(valkey.url),
            "PUNCTUAL_MONGODB_URI": mongo.uri,
            "PUNCTUAL_MONGODB_DATABASE": DATABASE,
            "PUNCTUAL_AUTH_MODE": "development",
            # One org at one target is the whole load here: its share and its places there would be what is measured.
            "PUNCTUAL_DEFAULT_HOST_CONCURRENT_REQUESTS": "0",
            "PUNCTUAL_EXECUTOR_ORG_SHARE": "1",
            # Growth loads the store beyond what an org may have by default.
            "PUNCTUAL_ORG_MAX_JOBS": "10000000",
            "PUNCTUAL_SCHEDULER_PUBLIC_ADDRESS": f"{LOOPBACK}:{public}",
            "PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS": f"{LOOPBACK}:{internal}",
            "PUNCTUAL_DISPATCHER_HEALTH_ADDRESS": f"{LOOPBACK}:{dispatcher}",
            **(settings or {}),
        }
        started = {"mongod": mongo.processes[0], "valkey": valkey.process}

        async def start(name: str, module: str, port: int, **changes: str) -> None:
            process = ChildProcess(
                name, [sys.executable, "-m", module], output=folder / f"{name}.log", env={**environment, **changes}
            )
            process.start()
            stack.push_async_callback(process.stop, seconds=15)
            started[name] = process

            async def listening() -> bool:
                return is_listening(port)

            await process.wait_ready(listening, seconds=60)

        await start("scheduler", "services.scheduler", public)
        await start("dispatcher", "services.dispatcher", dispatcher)
        for index, port in enumerate(executor_ports):
            health = f"{LOOPBACK}:{port}"
            await start(f"executor-{index}", "services.executor", port, PUNCTUAL_EXECUTOR_HEALTH_ADDRESS=health)
        client = await stack.enter_async_context(AsyncMongoClient[dict[str, Any]](mongo.uri, tz_aware=True))
        public_channel = await stack.enter_async_context(aio.insecure_channel(f"{LOOPBACK}:{public}", _UNLIMITED))
        internal_channel = await stack.enter_async_context(aio.insecure_channel(f"{LOOPBACK}:{internal}", _UNLIMITED))
        yield System(
            database=client[DATABASE],
            mongodb_uri=mongo.uri,
            jobs=job_service_pb2_grpc.JobServiceStub(public_channel),
            executions=execution_service_pb2_grpc.ExecutionServiceStub(public_channel),
            dispatch=dispatch_service_pb2_grpc.DispatchServiceStub(internal_channel),
            sink=sink,
            processes=started,
        )
