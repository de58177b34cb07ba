"""Compares what should have happened with what MongoDB holds and what the sink saw, and gives a verdict per promise.

The expected fires come from the test (an independent walk over its schedules), never from the scheduler's own cursor.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from tests.support.history import FINAL
from tests.support.sink import Arrival

PROMISES = {
    "P1": "one execution for each fire",
    "P2": "every execution ends",
    "P3": "a stale holder changes nothing",
    "P4": "never early",
    "P5": "nothing dropped in silence",
    "P6": "never sent twice under FAIL",
    "P9": "acknowledged means durable",
}
"""What the checker judges; isolation and secrecy (P7, P8) have tests of their own, bounds (P10) the benchmarks."""


@dataclass
class Report:
    """The verdicts, and the figures behind them."""

    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    executions: int = 0
    states: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    doubled: int = 0
    """Executions with more than one request, where the target did not fail."""
    lost: int = 0
    """Attempts whose executor was gone before it reported."""
    lags: list[float] = field(default_factory=list)

    @property
    def max_lag(self) -> float:
        """The largest lag of a first request, seconds."""
        return max(self.lags, default=0.0)

    def assert_clean(self) -> None:
        """Fail with every violation, a few examples each."""
        lines = [f"{promise}: {len(found)}, such as {found[:5]}" for promise, found in sorted(self.violations.items())]
        assert not lines, "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """Return the figures in one line."""
        return (
            f"executions={self.executions} {dict(self.states)} requests={self.requests} doubled={self.doubled} "
            f"max_lag={self.max_lag:.3f}s"
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """One fire that must have a record: the job, and its instant in whole milliseconds since the epoch."""

    job_id: str
    fire_millis: int

    @property
    def execution_id(self) -> str:
        """The id that its record must have."""
        return f"{self.job_id}-{self.fire_millis}"


async def check(
    database: AsyncDatabase[dict[str, Any]],
    arrivals: Sequence[Arrival],
    expected: Iterable[Expected],
    *,
    never_twice: Iterable[str] = (),
    deferrable: Iterable[str] = (),
    unacknowledged: Iterable[str] = (),
) -> Report:
    """Compare all three.

    `never_twice` names jobs whose on_unknown_outcome is FAIL, `deferrable` those whose target's circuit may open: their
    lag says nothing about us. `unacknowledged` names jobs that may exist or not, since no create was answered.
    """
    report = Report()
    documents = {document["_id"]: document async for document in database.executions.find({})}
    report.executions = len(documents)
    report.states = Counter(document["state"] for document in documents.values())
    report.requests = len(arrivals)
    wanted_fires = list(expected)
    wanted = {fire.execution_id for fire in wanted_fires}
    recorded = {key for key, document in documents.items() if document["cause"] == "SCHEDULE"}
    names = {document["_id"]: document.get("name") async for document in database.jobs.find({})}
    perhaps = frozenset(unacknowledged)
    recorded = {key for key in recorded if names.get(documents[key]["job_id"]) not in perhaps}
    acknowledged = {fire.job_id for fire in wanted_fires}
    report.violations["P9 acknowledged job is gone"] += sorted(acknowledged - names.keys())
    report.violations["P1 fires without a record"] += sorted(wanted - recorded)
    report.violations["P1 records without a fire"] += sorted(recorded - wanted)
    _check_states(report, documents)
    _check_requests(report, documents, arrivals, frozenset(never_twice), frozenset(deferrable))
    report.violations = {promise: found for promise, found in report.violations.items() if found}
    return report


def _check_states(report: Report, documents: dict[str, dict[str, Any]]) -> None:
    for key, document in documents.items():
        if document["state"] not in FINAL:
            report.violations["P2 not final"].append(f"{key} {document['state']}")
        if document["state"] == "SKIPPED" and not document.get("state_reason"):
            report.violations["P5 skipped without a reason"].append(key)
        report.lost += sum(attempt["outcome"] == "LOST" for attempt in document.get("attempts", ()))
        tokens = [attempt["fencing_token"] for attempt in document.get("attempts", ())]
        if tokens != sorted(set(tokens)):
            report.violations["P3 two outcomes under one token"].append(f"{key} {tokens}")


def _check_requests(
    report: Report,
    documents: dict[str, dict[str, Any]],
    arrivals: Sequence[Arrival],
    never_twice: frozenset[str],
    deferrable: frozenset[str],
) -> None:
    by_execution: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        by_execution[arrival.execution_id].append(arrival)
    for key, document in documents.items():
        seen = by_execution.pop(key, [])
        due = document["due_time"].replace(tzinfo=UTC).timestamp()
        if seen and document["job_id"] not in deferrable:
            report.lags.append(seen[0].at - due)
        if any(arrival.at < due for arrival in seen):
            early = min(arrival.at for arrival in seen) - due
            report.violations["P4 early"].append(f"{key} by {-early * 1000:.2f} ms")
        granted = document["fencing_token"]
        if len(seen) > granted:
            report.violations["P3 more requests than leases"].append(f"{key} {len(seen)} > {granted}")
        if document["state"] == "SUCCEEDED" and not seen:
            report.violations["P2 succeeded without a request"].append(key)
        if document["state"] == "SKIPPED" and seen:
            report.violations["P5 skipped but requested"].append(key)
        if len(seen) > 1:
            report.doubled += document["job_id"] not in deferrable
            if document["job_id"] in never_twice:
                report.violations["P6 sent twice under FAIL"].append(f"{key} {len(seen)}")
    report.violations["P1 requests without a record"] += sorted(by_execution)


def millis(instant: datetime) -> int:
    """Return the instant as whole milliseconds since the epoch."""
    return round(instant.timestamp() * 1000)
