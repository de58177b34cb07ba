"""`python -m services.scheduler`."""

from __future__ import annotations

import functools

from libs.common.lifecycle import run as run_process
from libs.common.logs import configure_logging
from libs.common.settings import load_settings
from services.scheduler.app import run
from services.scheduler.settings import SchedulerSettings


def main() -> None:
    """Serve until SIGTERM."""
    settings = load_settings(SchedulerSettings)
    configure_logging(settings.log_level, settings.log_format, "scheduler")
    run_process(functools.partial(run, settings), drain_seconds=settings.drain_seconds)


if __name__ == "__main__":
    main()
