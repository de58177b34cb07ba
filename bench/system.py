"""The system under measurement: real stores, the three services, and the sink, each a process of its own."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpc import aio
from punctual.v1 import job_service_pb2_grpc
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.ports import LOOPBACK, free_ports, is_listening
from tools.devstack.process import ChildProcess
from tools.devstack.valkey import ValkeyServer
from tools.devstack.waiting import wait_until

ORG = (("x-punctual-org", "bench"),)
DATABASE = "bench"


@dataclass
class System:
    """A running system and the handles that scenarios need."""

    database: AsyncDatabase[dict[str, Any]]
    jobs: job_service_pb2_grpc.JobServiceAsyncStub
    sink_port: int
    processes: dict[str, ChildProcess]

    @property
    def target(self) -> str:
        """The sink's address."""
        return f"http://{LOOPBACK}:{self.sink_port}/v1/prompt"

    @property
    def pids(self) -> dict[str, int]:
        """The processes whose CPU counts: services and stores, not the sink."""
        return {name: process.pid for name, process in self.processes.items() if name != "sink"}

    async def take_notes(self) -> list[tuple[int, str]]:
        """Return and forget what has arrived at the sink: wall-clock nanoseconds and execution id."""
        return await asyncio.to_thread(_fetch_notes, self.sink_port)


def _fetch_notes(port: int) -> list[tuple[int, str]]:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/notes") as answer:
        lines = answer.read().decode().splitlines()
    return [(int(line.partition(" ")[0]), line.partition(" ")[2]) for line in lines]


@asynccontextmanager
async def running_system(folder: Path, *, executors: int = 1, **settings: str) -> AsyncIterator[System]:
    """Start everything in an empty folder, and stop it afterwards."""
    ports = free_ports(4 + executors)
    public, internal, dispatcher, sink, *executor_ports = ports
    async with AsyncExitStack() as stack:
        mongo = await stack.enter_async_context(MongoReplicaSet(folder / "mongod", cache_gigabytes=1.0))
        valkey = await stack.enter_async_context(ValkeyServer(folder / "valkey"))
        environment = {
            "PUNCTUAL_MONGODB_URI": mongo.uri,
            "PUNCTUAL_MONGODB_DATABASE": DATABASE,
            "PUNCTUAL_REDIS_URL": valkey.url,
            "PUNCTUAL_AUTH_MODE": "development",
            "PUNCTUAL_ALLOWED_TARGETS": "127.0.0.0/8",
            "PUNCTUAL_METRICS_ADDRESS": f"{LOOPBACK}:0",
            "PUNCTUAL_LOG_LEVEL": "WARNING",
            "PUNCTUAL_SCHEDULER_PUBLIC_ADDRESS": f"{LOOPBACK}:{public}",
            "PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS": f"{LOOPBACK}:{internal}",
            "PUNCTUAL_DISPATCHER_HEALTH_ADDRESS": f"{LOOPBACK}:{dispatcher}",
            **settings,
        }
        processes = {"sink": _child("sink", folder, "bench.sink", ["--port", str(sink)], {})}
        processes["scheduler"] = _child("scheduler", folder, "services.scheduler", [], environment)
        processes["dispatcher"] = _child("dispatcher", folder, "services.dispatcher", [], environment)
        for index, port in enumerate(executor_ports):
            health = {"PUNCTUAL_EXECUTOR_HEALTH_ADDRESS": f"{LOOPBACK}:{port}"}
            name = f"executor-{index}"
            processes[name] = _child(name, folder, "services.executor", [], {**environment, **health})
        for name, process in processes.items():
            process.start()
            stack.push_async_callback(process.stop, seconds=15)
            if name in {"sink", "scheduler"}:
                await _listening(sink if name == "sink" else public)
        for port in (dispatcher, *executor_ports):
            await _listening(port)
        processes["mongod"] = mongo.processes[0]
        processes["valkey"] = valkey.process
        client = await stack.enter_async_context(AsyncMongoClient[dict[str, Any]](mongo.uri))
        channel = await stack.enter_async_context(
            aio.insecure_channel(
                f"{LOOPBACK}:{public}",
                options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
            )
        )
        yield System(client[DATABASE], job_service_pb2_grpc.JobServiceStub(channel), sink, processes)


def _child(name: str, folder: Path, module: str, arguments: list[str], environment: dict[str, str]) -> ChildProcess:
    argv = [sys.executable, "-m", module, *arguments]
    return ChildProcess(name, argv, output=folder / f"{name}.log", env=environment)


async def _listening(port: int) -> None:
    async def listening() -> bool:
        return is_listening(port)

    await wait_until(listening, seconds=30, what=f"port {port}")
