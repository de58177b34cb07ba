"""`python -m services.scheduler`."""

from __future__ import annotations

import functools
import gc

from libs.common.lifecycle import run as run_process
from libs.common.logs import configure_logging
from libs.common.settings import start_settings
from libs.common.tracing import configure_tracing
from services.scheduler.app import run
from services.scheduler.settings import SchedulerSettings

GC_ALLOCATIONS = 50_000
"""New containers between two collections. A batch of a thousand makes ten times as many, none of them a cycle: at
Python's own 700, a third of its time went into looking for some."""


def main() -> None:
    """Serve until SIGTERM."""
    settings = start_settings(SchedulerSettings, "services.scheduler")
    configure_logging(settings.log_level, settings.log_format, "scheduler")
    # What was imported stays for good and need not be looked at again.
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    stop_tracing = configure_tracing("scheduler")
    try:
        run_process(functools.partial(run, settings), drain_seconds=settings.drain_seconds)
    finally:
        stop_tracing()


if __name__ == "__main__":
    main()
