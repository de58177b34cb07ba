"""The executor as a whole: which duties run side by side, and in which order they stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from libs.common.clock import Clock
from libs.common.supervised_loop import Heartbeat, run_forever
from services.executor.usecases.drain import Drain


@dataclass(frozen=True, slots=True)
class Duty:
    """A loop: what it does each time, how long it rests between, and its sign of life."""

    name: str
    run_once: Callable[[], Awaitable[object]]
    interval: float
    heartbeat: Heartbeat


class Executor:
    """Runs the duties of the intake until told to stop, and those that carry outcomes until the drain is over."""

    def __init__(
        self,
        intake: Sequence[Duty],
        delivery: Sequence[Duty],
        drain: Drain,
        on_stopping: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._intake = intake
        self._delivery = delivery
        self._drain = drain
        self._on_stopping = on_stopping
        self._clock = clock

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until `stopping` is set, then drain."""
        drained = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            delivery = [tasks.create_task(self._forever(duty, drained), name=duty.name) for duty in self._delivery]
            async with asyncio.TaskGroup() as intake:
                for duty in self._intake:
                    intake.create_task(self._forever(duty, stopping), name=duty.name)
                await stopping.wait()
                stopped = self._clock.monotonic()
                await self._on_stopping()
            # The intake has ended by itself: what it had asked the scheduler for is held by now.
            await self._drain.run(stopped)
            # The event ends a loop whose library swallows the cancellation; the cancellation ends one that waits.
            drained.set()
            for task in delivery:
                task.cancel()

    async def _forever(self, duty: Duty, stopping: asyncio.Event) -> None:
        await run_forever(
            duty.name,
            duty.run_once,
            interval=duty.interval,
            stopping=stopping,
            clock=self._clock,
            heartbeat=duty.heartbeat,
        )
