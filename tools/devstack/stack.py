"""Everything that `make run` runs, as one thing that starts and stops in order.

Databases first, then the services all at once, since they must bear any order. Stopping goes the other way round:
executors and dispatcher, then the scheduler, then the databases. Each step has a deadline after which it is killed, so
that the whole ends within about 15 seconds. The data folder is locked: a second stack on it fails at once instead of
fighting over the database files.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from tools.devstack.console import Console
from tools.devstack.mongod import MongoReplicaSet
from tools.devstack.process import ChildProcess
from tools.devstack.services import Addresses, choose_addresses, service_children, service_environment
from tools.devstack.supervisor import keep_running
from tools.devstack.valkey import ValkeyServer

CLIENT_STOP_SECONDS = 6.0
SERVER_STOP_SECONDS = 4.0


class FolderInUseError(Exception):
    """Another stack runs on the same data folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"another stack runs on {folder}: stop it, or choose another folder: python -m tools.devstack --data FOLDER"
        )


@asynccontextmanager
async def running_stack(folder: Path, *, executors: int, console: Console) -> AsyncIterator[Addresses]:
    """Run databases and services while the body runs; children that end meanwhile are started again.

    PUNCTUAL_MONGODB_URI and PUNCTUAL_REDIS_URL, where set, are used instead of servers of our own.

    Raises:
        FolderInUseError: another stack runs on the folder.
    """
    say = console.sink("devstack")
    kept: list[ChildProcess] = []
    async with AsyncExitStack() as cleanup:
        cleanup.enter_context(_locked(folder))
        mongodb_uri = os.environ.get("PUNCTUAL_MONGODB_URI", "")
        if not mongodb_uri:
            mongo = await cleanup.enter_async_context(MongoReplicaSet(folder / "mongod"))
            kept += mongo.processes
            mongodb_uri = mongo.uri
        redis_url = os.environ.get("PUNCTUAL_REDIS_URL", "")
        if not redis_url:
            valkey = await cleanup.enter_async_context(ValkeyServer(folder / "valkey"))
            kept.append(valkey.process)
            redis_url = valkey.url
        say(f"mongodb at {_without_credentials(mongodb_uri)}, redis at {_without_credentials(redis_url)}")

        addresses = choose_addresses(os.environ, executors, say)
        environment = service_environment(os.environ, addresses, mongodb_uri=mongodb_uri, redis_url=redis_url)
        children = service_children(addresses, environment, console)
        cleanup.push_async_callback(_stop, children.servers, SERVER_STOP_SECONDS)
        cleanup.push_async_callback(_stop, children.clients, CLIENT_STOP_SECONDS)
        for child in children.all:
            child.start()
        kept += children.all
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(keep_running(child, say)) for child in kept]
            try:
                yield addresses
            finally:
                say("stopping")
                for keeper in keepers:
                    keeper.cancel()


async def _stop(children: Iterable[ChildProcess], seconds: float) -> None:
    await asyncio.gather(*(child.stop(seconds=seconds) for child in children))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the kernel lets go of it when the process ends, however it does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderInUseError(folder) from error
        yield


def _without_credentials(address: str) -> str:
    scheme, separator, rest = address.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
