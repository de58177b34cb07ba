"""The world of the executors beside stream and scheduler: targets that answer, or not; gates; alarms.

The target remembers every request, with the true time, and that memory is what the checks go by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from libs.common.errors import UnavailableError
from services.executor.domain.answer import Answer
from services.executor.domain.attempt import Grant
from services.executor.domain.gate_values import (
    SECOND,
    Admitted,
    Ask,
    DeferReason,
    Deferred,
    GateSummary,
    Note,
    TargetKey,
    Verdict,
)
from services.executor.domain.report import CallProgress, CallResult, Result
from services.executor.usecases.ports import GateAnswers, Release, at_once
from tests.support.simulation.kernel import Handle, Kernel, ProcessLoop
from tests.support.simulation.plan import FAIR, Weather

ANSWER = Answer((), "", b"", None, b"", "", 0, 0, truncated=False, sha256=b"")


@dataclass(slots=True)
class Post:
    """One request that an executor began to make."""

    grant: Grant
    executor: str
    micros: int
    may_be_sent: bool = False
    retry_after: float | None = None


class Targets:
    """All targets, behind one door."""

    def __init__(self, kernel: Kernel, rng: Random) -> None:
        self.weather: Weather = FAIR
        self.posts: dict[str, list[Post]] = {}
        """By execution, in the order of their starts."""
        self.on_start: Callable[[Post], None] = lambda _: None
        self._kernel = kernel
        self.rng = rng

    def started(self, grant: Grant, executor: str) -> Post:
        post = Post(grant, executor, self._kernel.micros)
        self.on_start(post)
        self.posts.setdefault(grant.lease.execution_id, []).append(post)
        return post


class Caller:
    """Implements `TargetCaller` for one executor."""

    def __init__(self, targets: Targets, executor: str, sleep: Callable[[float], object]) -> None:
        self._targets = targets
        self._executor = executor
        self._sleep = sleep

    async def call(self, grant: Grant, progress: CallProgress, release: Release = at_once) -> CallResult:
        rng, weather = self._targets.rng, self._targets.weather
        await release()
        post = self._targets.started(grant, self._executor)
        await self._sleep(0.001 + 0.01 * rng.random())
        bad = rng.random() < weather.target_bad
        if bad and rng.random() < 0.2:
            if rng.random() < 0.5:
                return CallResult(Result.NOT_SENT, error_reason=rng.choice(("CONNECT_FAILED", "BLOCKED_ADDRESS")))
            await self._sleep(grant.request.connect_timeout)
            return CallResult(Result.CONNECT_TIMED_OUT)
        progress.may_be_sent = post.may_be_sent = True
        slow = rng.random() < weather.target_slow
        takes = rng.uniform(0.5, 10.0) if slow else 0.005 + 0.2 * rng.random()
        if takes >= grant.request.total_timeout:
            await self._sleep(grant.request.total_timeout)
            return CallResult(Result.TIMED_OUT)
        await self._sleep(takes)
        if not bad:
            return CallResult(Result.ANSWERED, 200, answer=ANSWER)
        match rng.randrange(8):
            case 0 | 1:
                return CallResult(Result.NO_ANSWER)
            case 2:
                post.retry_after = rng.choice((0.1, 3.0))
                return CallResult(Result.ANSWERED, 429, answer=ANSWER, retry_after=post.retry_after)
            case 3:
                return CallResult(Result.ANSWERED, 404, answer=ANSWER)
            case 4 if rng.random() < 0.2:
                return CallResult(Result.ANSWERED, 410, answer=ANSWER, stop_requested=True)
            case _:
                return CallResult(Result.ANSWERED, 503, answer=ANSWER)


class OpenGates:
    """Implements `SharedGates`: lets through, now and then puts off, sometimes is away."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def exchange(
        self, notes: Sequence[tuple[TargetKey, Note]], asks: Sequence[tuple[TargetKey, Ask]]
    ) -> GateAnswers:
        return GateAnswers(
            after_notes=(GateSummary(),) * len(notes),
            verdicts=tuple(self._verdict(ask) for _, ask in asks),
            after_asks=(GateSummary(),) * len(asks),
        )

    def _verdict(self, ask: Ask) -> Verdict:
        rng = self._targets.rng
        if self._targets.weather.target_bad and rng.random() < 0.05:
            return Deferred(ask.at + rng.randrange(3 * SECOND), DeferReason.JOB_RATE_LIMIT)
        return Admitted(ask.at, ask.at + 60 * SECOND)

    async def renew(self, places: Mapping[TargetKey, Sequence[str]], now: int, lease_until: int) -> None:
        """Keep nothing."""

    async def restore(self, starts: Mapping[TargetKey, Mapping[str, Sequence[tuple[str, int]]]]) -> None:
        """Restore nothing."""

    async def sign_of_life(self, executor_id: str, now: int) -> tuple[int, bool]:
        if self._targets.weather.stream_error and self._targets.rng.random() < 0.1:
            raise UnavailableError("GATES_UNAVAILABLE", "a message was lost")
        return 2, True


class LoopAlarm:
    """Rings by its process's loop."""

    def __init__(self, loop: ProcessLoop, on_ring: Callable[[], None]) -> None:
        self._loop = loop
        self._on_ring = on_ring
        self._handle: Handle | None = None

    def set(self, seconds: float) -> None:
        self.cancel()
        self._handle = self._loop.call_later(seconds, self._on_ring)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Silent:
    """Implements `ExecutorObserver` for nobody."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return _ignore


def _ignore(*_: object, **__: object) -> None:
    """Hear and forget."""
