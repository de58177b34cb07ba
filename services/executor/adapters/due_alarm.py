"""An alarm that rings within microseconds of its setting, on a kernel timer where there is one.

uvloop's timers count whole milliseconds; a millisecond is what the product is judged by. A timerfd rings through the
event loop's own poll instead, so that waiting costs nothing and a ring comes as soon as the loop is free. Elsewhere
the loop's timers serve; whoever is rung looks at the clock anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable

from services.executor.usecases.ports import Alarm

_CLOCK_MONOTONIC = 1
_NONBLOCK_AND_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_SHORTEST_SECONDS = 1e-6
"""A setting of zero would disarm a timerfd."""


def make_alarm(on_ring: Callable[[], None]) -> Alarm:
    """Return the most exact alarm that this machine has, on the running event loop."""
    loop = asyncio.get_running_loop()
    if sys.platform == "linux":
        # A sandbox may forbid the call.
        with contextlib.suppress(OSError, AttributeError):
            return KernelAlarm(loop, on_ring)
    return LoopAlarm(loop, on_ring)


class _Timespec(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class KernelAlarm:
    """An alarm on a Linux timerfd, through libc (Python has it from 3.13 on); lives as long as the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_ring: Callable[[], None]) -> None:
        """Raise OSError or AttributeError where there is no timerfd."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_AND_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._on_ring = on_ring
        loop.add_reader(self._fd, self._ring)

    def set(self, seconds: float) -> None:
        """Ring after that many seconds, instead of any earlier setting."""
        whole, part = divmod(max(seconds, _SHORTEST_SECONDS), 1)
        self._arm(_Itimerspec(_Timespec(0, 0), _Timespec(int(whole), int(part * 1e9))))

    def cancel(self) -> None:
        """Do not ring."""
        self._arm(_Itimerspec())

    def _arm(self, setting: _Itimerspec) -> None:
        self._settime(self._fd, 0, ctypes.byref(setting), None)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            # Set anew between the kernel's ring and ours.
            return
        self._on_ring()


class LoopAlarm:
    """An alarm on the event loop's own timers, as exact as those are."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_ring: Callable[[], None]) -> None:
        self._loop = loop
        self._on_ring = on_ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Ring after that many seconds, instead of any earlier setting."""
        self.cancel()
        self._handle = self._loop.call_later(seconds, self._on_ring)

    def cancel(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
