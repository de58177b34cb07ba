"""What a scenario measures, and how lag is summed up.

Percentiles are exact: they come from all lags, none of which is dropped or rounded, and are kept on the grid that HDR
histograms are printed on. A result is one JSON line; the report is made of nothing else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

GRID = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 95, 97, 98, 99, 99.5, 99.9, 99.95, 99.99, 100)
"""The percentiles that a result keeps."""
SLICE_MILLIS = 100
"""Throughput is counted in slices of this length."""


@dataclass
class Result:
    """The figures of one run of one scenario by one system; lags in milliseconds, CPU in seconds."""

    scenario: str
    system: str
    executions: int = 0
    seconds: float = 0.0
    """From the first due instant until the last outcome was stored."""
    missing: int = 0
    doubled: int = 0
    early: int = 0
    lag: dict[str, float] = field(default_factory=dict)
    """Percentile to milliseconds: arrival at the target minus due time."""
    arrivals: list[int] = field(default_factory=list)
    """How many arrived in each slice, the first of which begins at the first due instant."""
    cpu: dict[str, float] = field(default_factory=dict)
    """User and system seconds of each process, the sink left out."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Figures that only this scenario has."""
    round: int = 1

    @property
    def per_second(self) -> float:
        """Executions a second."""
        return self.executions / self.seconds if self.seconds else 0.0

    @property
    def cpu_millis_each(self) -> float:
        """CPU milliseconds of all counted processes for each execution."""
        return 1000 * sum(self.cpu.values()) / self.executions if self.executions else 0.0

    @property
    def is_exact(self) -> bool:
        """Whether everything arrived, once, and not before it was due."""
        return not (self.missing or self.doubled or self.early)

    def line(self) -> str:
        """Return the result as one JSON line."""
        return json.dumps({"kind": "result", **asdict(self)})

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Self:
        """Return the result of a line that was read."""
        return cls(**{name: value for name, value in fields.items() if name != "kind"})

    def sentence(self) -> str:
        """Return the result for people."""
        parts = [f"{self.scenario:<12} {self.system:<12}"]
        if self.executions:
            parts.append(f"{self.per_second:7.0f}/s  cpu {self.cpu_millis_each:6.3f} ms each")
        if self.lag:
            parts.append(f"lag p50 {self.lag['50']:8.2f} p99 {self.lag['99']:8.2f} max {self.lag['100']:8.2f} ms")
        if not self.is_exact:
            parts.append(f"MISSING {self.missing} DOUBLED {self.doubled} EARLY {self.early}")
        return "  ".join(parts)


def judge(result: Result, notes: Sequence[tuple[int, str]], due_nanos: Mapping[str, int]) -> Result:
    """Fill in lag, arrivals, missing, doubled and early from what the sink noted and what was due when."""
    seen = Counter(key for _, key in notes if key in due_nanos)
    lags = sorted((at - due_nanos[key]) / 1e6 for at, key in notes if key in due_nanos)
    result.missing = len(due_nanos) - len(seen)
    result.doubled = sum(1 for count in seen.values() if count > 1)
    result.early = sum(1 for lag in lags if lag < 0)
    result.lag = summary(lags)
    result.arrivals = _slices([at for at, key in notes if key in due_nanos], min(due_nanos.values(), default=0))
    return result


def summary(values: Iterable[float]) -> dict[str, float]:
    """Return the percentiles of values on the grid; none of no values."""
    ordered = sorted(values)
    return {f"{percent:g}": round(percentile(ordered, percent), 4) for percent in GRID} if ordered else {}


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the least value that so many percent of an ascending sequence do not exceed."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[min(max(int(rank), 1), len(ordered)) - 1]


def slope_per_second(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the value of (second, value) pairs grows in a second, by least squares."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def append_line(path: Path, line: str) -> None:
    """Append a line to a file."""
    with path.open("a") as file:
        file.write(line + "\n")


def _slices(arrivals: Sequence[int], start: int) -> list[int]:
    counts = Counter(max(0, (at - start) // (SLICE_MILLIS * 1_000_000)) for at in arrivals)
    return [counts[index] for index in range(max(counts) + 1)] if counts else []
