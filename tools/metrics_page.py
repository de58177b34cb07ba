"""Writes docs/metrics.md from the metrics that the services make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from libs.common.clock import SystemClock
from libs.common.clock_offset import OffsetEstimator
from libs.common.metrics import Family, Metrics
from services.dispatcher.signals import Signals as DispatcherSignals
from services.executor.signals import Signals as ExecutorSignals
from services.scheduler.adapters.metrics.replica_metrics import watch_database
from services.scheduler.adapters.mongo.clock_check import DatabaseCheck
from services.scheduler.adapters.mongo.connection import open_client
from services.scheduler.signals import Signals as SchedulerSignals

SEVERAL = "Several services"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"

HEAD = """\
# Metrics

Generated from the code by `make docs`; a change here is overwritten, and a test compares.

Each process serves its metrics at `PUNCTUAL_METRICS_ADDRESS`. Units are seconds, bytes and counts. Labels have few
values, all from our own code: no org, job, host or path is a label.

*Replicas* says how the values of several replicas become one. `sum`: each counts its own, as in
`sum(rate(punctual_executions_total[5m]))`. `max`, `min`: each shows what it sees of the whole, as in
`max(punctual_partitions_unowned)`; a sum would count it once a replica.

Beside these stand the `process_*` metrics of the Prometheus client. Alerts over them are in
`deploy/monitoring/alerts.yaml`, what to do about each in [runbooks.md](runbooks.md), a Grafana dashboard in
`deploy/monitoring/dashboard.json`.
"""

PURPOSES = """\
## What to look at

| question | expression |
|---|---|
| How late do POSTs start? | `histogram_quantile(0.99, sum by (le) (rate(punctual_lag_seconds_bucket[5m])))` |
| Which part starts within a second? | `1 - punctual:late:ratio_rate5m`, recorded by the alerts |
| Is anything left lying, and where? | `max by (place) (punctual_overdue)` |
| How many executions end, and how? | `sum by (state) (rate(punctual_executions_total[5m]))` |
| What holds executions back? | `sum by (reason) (rate(punctual_deferrals_total[5m]))` |
| Do executors keep up? | `max(punctual_stream_lag_entries)` |
| How many calls fail? | `sum by (method, code) (rate(punctual_rpc_handled_total{code!="OK"}[5m]))` |
"""


def services() -> Iterator[tuple[str, Metrics]]:
    """Yield each service's metrics."""
    scheduler = SchedulerSignals()
    # Connects to nothing: only the metrics are asked for.
    check = DatabaseCheck(open_client("mongodb://127.0.0.1")["none"], SystemClock())
    watch_database(scheduler.metrics, check)
    yield "scheduler", scheduler.metrics
    yield "dispatcher", DispatcherSignals().metrics
    yield "executor", ExecutorSignals(OffsetEstimator()).metrics


def render() -> str:
    """Return the page."""
    served: dict[Family, list[str]] = {}
    for name, metrics in services():
        for family in metrics.families:
            served.setdefault(family, []).append(name)
    groups: dict[str, list[Family]] = {}
    for family, names in served.items():
        title = f"{names[0].capitalize()}s" if len(names) == 1 else SEVERAL
        groups.setdefault(title, []).append(family)
    sections = [
        _section(title, groups[title], served) for title in sorted(groups, key=lambda t: t == "Several services")
    ]
    return "\n".join([HEAD, PURPOSES, *sections])


def _section(title: str, families: list[Family], served: dict[Family, list[str]]) -> str:
    lines = [f"## {title}", "", "| metric | kind | labels | replicas | meaning |", "|---|---|---|---|---|"]
    for family in sorted(families, key=lambda each: each.name):
        labels = ", ".join(f"`{label}`" for label in family.labels)
        where = "" if title != SEVERAL or len(served[family]) == 3 else f" ({', '.join(served[family])})"
        lines.append(
            f"| `{family.name}` | {family.kind} | {labels} | {family.across} | {family.documentation}{where} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
