"""`python -m services.scheduler`."""

from __future__ import annotations

import functools

from libs.common.lifecycle import run as run_process
from libs.common.logs import configure_logging
from libs.common.settings import start_settings
from libs.common.tracing import configure_tracing
from services.scheduler.app import run
from services.scheduler.settings import SchedulerSettings


def main() -> None:
    """Serve until SIGTERM."""
    settings = start_settings(SchedulerSettings, "services.scheduler")
    configure_logging(settings.log_level, settings.log_format, "scheduler")
    stop_tracing = configure_tracing("scheduler")
    try:
        run_process(functools.partial(run, settings), drain_seconds=settings.drain_seconds)
    finally:
        stop_tracing()


if __name__ == "__main__":
    main()
