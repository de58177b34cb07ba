"""What a replica of the scheduler tells of itself: whether its database answers, and its clock."""

from __future__ import annotations

from libs.common.metrics import Metrics
from services.scheduler.adapters.mongo.clock_check import DatabaseCheck


def watch_database(metrics: Metrics, check: DatabaseCheck) -> None:
    """Show, at each scrape, what the replica's own check of the database found last."""
    metrics.gauge("mongodb_up", "1 while a primary answers this replica, else 0.", across="min").set_function(
        lambda: float(check.check_primary() is None)
    )
    metrics.gauge(
        "clock_offset_seconds", "The database's clock minus this replica's.", ("service",), across="max"
    ).labels("scheduler").set_function(lambda: check.offset.total_seconds())  # noqa: PLW0108 - the offset changes
