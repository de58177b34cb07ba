"""Virtual time, and processes that can freeze and die: the ground that a simulated Punctual stands on.

Each process has an event loop of its own, so that its tasks, futures and timers are its memory. All loops share one
queue and one time, which jumps from timer to timer. What is random is asked of the seed's generator, and nothing else
is, so a seed always takes the same way.

    RUNNING ──freeze──► FROZEN ──thaw──► RUNNING      like SIGSTOP and SIGCONT: nothing runs, nothing is lost
    RUNNING, FROZEN ──kill──► DEAD                    like a power cut: no cleanup runs, whatever it awaited
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import heapq
import itertools
from asyncio import events
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(2040, 1, 2, 12, 0, tzinfo=UTC)
"""When each simulation begins; a whole minute."""

MAX_STEPS_WITHOUT_TIME = 200_000
"""Steps in one instant from which something runs in circles."""


class Livelock(Exception):  # noqa: N818 - a finding, not an error
    """Something runs in circles and lets no time pass."""


class State(enum.Enum):
    """How a process is."""

    RUNNING = enum.auto()
    FROZEN = enum.auto()
    DEAD = enum.auto()


class Handle:
    """One callback to be called."""

    __slots__ = ("args", "callback", "context", "loop")

    def __init__(
        self,
        loop: ProcessLoop | None,
        callback: Callable[..., object],
        args: tuple[object, ...],
        context: contextvars.Context | None,
    ) -> None:
        self.loop = loop
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = context

    def cancel(self) -> None:
        self.callback = None

    def cancelled(self) -> bool:
        return self.callback is None


class Kernel:
    """The time, and what is to run in it."""

    def __init__(self) -> None:
        self.micros = 0
        """Virtual time since EPOCH."""
        self.failures: list[BaseException] = []
        """What ended a task that nobody awaits, or escaped a callback: a finding each."""
        self._ready: deque[Handle] = deque()
        self.add_ready = self._ready.append
        self.timers: list[tuple[int, int, Handle]] = []
        self.order = itertools.count()
        self._loops: list[ProcessLoop] = []

    def now(self) -> datetime:
        """Return the true time, which no process knows."""
        return EPOCH + timedelta(microseconds=self.micros)

    def new_loop(self) -> ProcessLoop:
        """Return the loop of a new process."""
        loop = ProcessLoop(self)
        self._loops.append(loop)
        return loop

    def after(self, seconds: float, callback: Callable[..., object], *args: object) -> Handle:
        """Have something happen outside of all processes."""
        return self.add_timer(self.micros + round(seconds * 1e6), Handle(None, callback, args, None))

    def add_timer(self, micros: int, handle: Handle) -> Handle:
        heapq.heappush(self.timers, (micros, next(self.order), handle))
        return handle

    def run_for(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Let time pass: that long, or until `until` holds, which is asked once an instant."""
        end = self.micros + round(seconds * 1e6)
        while True:
            self._run_instant()
            if until is not None and until():
                break
            if not self.timers or self.timers[0][0] > end:
                self.micros = max(self.micros, end)
                break
            self.micros = max(self.micros, self.timers[0][0])
            while self.timers and self.timers[0][0] <= self.micros:
                self._ready.append(heapq.heappop(self.timers)[2])
            if self.failures:
                break
        if self.failures:
            raise self.failures[0]

    def _run_instant(self) -> None:
        """Run what is ready until nothing is."""
        ready, current, steps = self._ready, None, 0
        try:
            while ready:
                handle = ready.popleft()
                callback, loop = handle.callback, handle.loop
                if callback is None:
                    continue
                if loop is not current:
                    if loop is not None and loop.state is not State.RUNNING:
                        loop.keep(handle)
                        continue
                    events._set_running_loop(loop)
                    current = loop
                if handle.context is None:
                    callback(*handle.args)
                else:
                    handle.context.run(callback, *handle.args)
                if loop is not None and loop.state is not State.RUNNING:
                    # It was killed or frozen by what it did itself.
                    current = None
                steps += 1
                if steps > MAX_STEPS_WITHOUT_TIME:
                    raise Livelock(f"after {self.micros / 1e6:.6f} s: {callback} {handle.args}")
        finally:
            events._set_running_loop(None)

    def close(self) -> None:
        """Unwind every process, so that no coroutine is left to the garbage collector."""
        self.timers.clear()
        for loop in self._loops:
            loop.unwind()
        for _ in range(5):
            self._run_instant()
            tasks = [task for loop in self._loops for task in loop.tasks if not task.done()]
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.timers.clear()
        self._ready.clear()


class ProcessLoop(asyncio.AbstractEventLoop):
    """The event loop of one process: the part of it that tasks, futures and timeouts ask for."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._add_ready = kernel.add_ready
        self.state = State.RUNNING
        self.unwinding = False
        self.tasks: list[asyncio.Task[Any]] = []
        """Held until the end: a coroutine that is collected runs its `finally` blocks, and the dead do nothing."""
        self._frozen: list[Handle] = []
        self._kept: list[Handle] = []

    def freeze(self) -> None:
        if self.state is State.RUNNING:
            self.state = State.FROZEN

    def thaw(self) -> None:
        if self.state is State.FROZEN:
            self.state = State.RUNNING
            for handle in self._frozen:
                self.kernel.add_ready(handle)
            self._frozen.clear()

    def kill(self) -> None:
        self.state = State.DEAD

    def unwind(self) -> None:
        """Run again, whatever became of it, in order to be cancelled."""
        self.unwinding, self.state = True, State.RUNNING
        for kept in (*self._frozen, *self._kept):
            self.kernel.add_ready(kept)

    def keep(self, handle: Handle) -> None:
        """Take back what cannot run now."""
        (self._frozen if self.state is State.FROZEN else self._kept).append(handle)

    # What asyncio asks of a loop

    def time(self) -> float:
        return self.kernel.micros / 1e6

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: contextvars.Context | None = None
    ) -> Handle:
        handle = Handle(self, callback, args, context)
        self._add_ready(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object, context: contextvars.Context | None = None
    ) -> Handle:
        # Never earlier than asked for.
        kernel, handle = self.kernel, Handle(self, callback, args, context)
        micros = kernel.micros - int(-delay * 1e6 // 1) if delay > 0 else kernel.micros
        heapq.heappush(kernel.timers, (micros, next(kernel.order), handle))
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: contextvars.Context | None = None
    ) -> Handle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, **options)
        task._log_destroy_pending = False
        self.tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self.state is State.RUNNING

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.unwinding:
            self.kernel.failures.append(context.get("exception") or RuntimeError(context["message"]))


class ProcessClock:
    """Implements `Clock` for one process, whose wall clock may be off."""

    def __init__(self, loop: ProcessLoop, offset: timedelta) -> None:
        self._loop = loop
        self._base = EPOCH + offset

    def now(self) -> datetime:
        return self._base + timedelta(microseconds=self._loop.kernel.micros)

    def monotonic(self) -> float:
        return self._loop.kernel.micros / 1e6

    def sleep(self, seconds: float) -> asyncio.Future[None]:
        return nap(self._loop, seconds)


class Nap(asyncio.Future[None]):
    """A sleep without a task around it, which is most of what a sleep costs."""


def nap(loop: ProcessLoop, seconds: float) -> Nap:
    """Return what is done after so many seconds of a process's time."""
    waiter = Nap(loop=loop)
    if seconds <= 0:
        loop.call_soon(_wake, waiter)
    else:
        loop.call_later(seconds, _wake, waiter)
    return waiter


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Do what `libs.common.lifecycle.first_of` does without a task for each wait: processes wait by it all the time."""
    loop = asyncio.get_running_loop()
    first = loop.create_future()

    def ring(_: object) -> None:
        if not first.done():
            first.set_result(None)

    own: list[asyncio.Future[Any]] = []
    for item in awaitables:
        if type(item) is Nap:
            future = item
            own.append(future)
        elif isinstance(item, asyncio.Future):
            future = item
        else:
            future = _wait_of_event(loop, item) or loop.create_task(item)  # type: ignore[arg-type]
            own.append(future)
        future.add_done_callback(ring)
    try:
        await first
    finally:
        for future in own:
            future.cancel()
        for future in own:
            while not future.done():
                # A task ends a moment after its cancellation, and must have ended before the caller goes on.
                await nap(loop, 0)  # type: ignore[arg-type]


_EVENT_WAIT = asyncio.Event.wait.__code__


def _wait_of_event(loop: asyncio.AbstractEventLoop, item: Any) -> asyncio.Future[Any] | None:
    """Turn the coroutine of a wait for an event into what it would wait for; None if it is another coroutine."""
    if getattr(item, "cr_code", None) is not _EVENT_WAIT:
        return None
    event = item.cr_frame.f_locals["self"]
    item.close()
    future: asyncio.Future[Any] = loop.create_future()
    if event.is_set():
        future.set_result(True)
        return future
    waiters = event._waiters
    waiters.append(future)
    while waiters and waiters[0].cancelled():
        waiters.popleft()
    return future


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
