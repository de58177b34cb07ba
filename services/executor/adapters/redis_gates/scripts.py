"""Runs Lua scripts by their digest, many in one round trip, and loads them where a server does not know them.

A server forgets its scripts when it restarts, and a replica that took over may never have had them: such a call fails
with NOSCRIPT before it does anything, so it is safe to load the script and repeat that call alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from libs.common.errors import UnavailableError
from libs.common.streams.connection import RedisClient


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the digest by which servers know it."""

    source: str
    digest: str


def load_script(name: str) -> Script:
    """Return the script of that file beside this module."""
    source = files(__package__).joinpath(name).read_text("utf-8")
    # Not for secrecy: the digest is how Redis names scripts.
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Call:
    """A script with its keys, all of one slot of a Cluster, and its arguments."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[str | int | bytes]


class ScriptRunner:
    """Runs calls on one Redis."""

    def __init__(self, redis: RedisClient, *, seconds: float) -> None:
        # Typed as Any: the two client classes share these commands, but no base class that declares them.
        self._redis: Any = redis
        self._seconds = seconds

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run calls in order, in one round trip; return their answers.

        Raises:
            UnavailableError: Redis is away or refuses; any of them may have been run.
        """
        async with bounded(self._seconds):
            answers = await self._send(calls)
            unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                for source in {calls[index].script.source for index in unknown}:
                    await self._redis.script_load(source)
                for index, answer in zip(unknown, await self._send([calls[i] for i in unknown]), strict=True):
                    answers[index] = answer
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if failures:
            raise _unavailable(failures[0])
        return answers

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            # Not `evalsha`: the pipeline of a cluster refuses that method, though it routes the command well.
            pipeline.execute_command("EVALSHA", call.script.digest, len(call.keys), *call.keys, *call.arguments)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Give the commands inside that long, and turn every way in which Redis can fail into UnavailableError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> UnavailableError:
    kind = type(error).__name__
    return UnavailableError("GATES_UNAVAILABLE", f"Redis: {kind}: {error}", metadata={"kind": kind})
