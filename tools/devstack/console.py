"""One terminal for many processes: each line gets the name and the color of who said it."""

from __future__ import annotations

import itertools
import os
import threading
from typing import TextIO

from tools.devstack.process import LineSink

NAME_WIDTH = 12
RESET = "\x1b[0m"
COLORS = ("\x1b[36m", "\x1b[35m", "\x1b[33m", "\x1b[32m", "\x1b[34m", "\x1b[96m", "\x1b[95m", "\x1b[93m")


class Console:
    """Writes whole lines to a stream, from any thread.

    Colors are used on a terminal only, and not when NO_COLOR is set. A reader that went away is no error: the stack
    goes on and is stopped by signals.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colored = stream.isatty() and not os.environ.get("NO_COLOR")
        self._colors = itertools.cycle(COLORS)
        self._lock = threading.Lock()

    def sink(self, name: str) -> LineSink:
        """Return what writes the lines of one process."""
        prefix = f"{name:<{NAME_WIDTH}} | "
        if self._colored:
            prefix = f"{next(self._colors)}{prefix}{RESET}"

        def write(line: str) -> None:
            with self._lock:
                try:
                    self._stream.write(f"{prefix}{line}\n")
                    self._stream.flush()
                except BrokenPipeError:
                    pass

        return write
