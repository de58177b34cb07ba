"""Crash points: named lines at which a test can make a process die as if by power cut.

`crash_point("dispatcher.acquired")` ends the process with code 86, running no cleanup at all, if and only if the
variable PUNCTUAL_CRASH_POINT holds that very name. Each stands at a crash window that the code's comments claim to
survive.
"""

from __future__ import annotations

import os

CRASH_EXIT_CODE = 86
_CHOSEN = os.environ.get("PUNCTUAL_CRASH_POINT")
"""Read once: a point is passed several times for each execution."""


def crash_point(name: str) -> None:
    """Die here, if this point was chosen."""
    if name == _CHOSEN:
        os._exit(CRASH_EXIT_CODE)
