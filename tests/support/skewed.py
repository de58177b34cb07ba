"""Runs a service whose clock is off: `python -m tests.support.skewed services.scheduler SECONDS`.

Only our own clock is moved, as the whole machine's would be: what the process asks of MongoDB or of another process is
told by theirs.
"""

from __future__ import annotations

import runpy
import sys
from datetime import UTC, datetime, timedelta

from libs.common.clock import SystemClock


def main() -> None:
    """Move the clock, then run the service."""
    module, seconds = sys.argv[1:]
    del sys.argv[1:]
    offset = timedelta(seconds=float(seconds))
    SystemClock.now = lambda self: datetime.now(UTC) + offset  # type: ignore[method-assign]
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()
