"""What a scenario measures, and how lag is summed up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Result:
    """The figures of one run of one scenario by one system; lags in milliseconds, CPU in seconds."""

    scenario: str
    system: str
    executions: int
    seconds: float
    missing: int = 0
    doubled: int = 0
    early: int = 0
    lag_p50: float = 0.0
    lag_p99: float = 0.0
    lag_max: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Executions a second."""
        return self.executions / self.seconds if self.seconds else 0.0

    @property
    def cpu_millis_each(self) -> float:
        """CPU milliseconds of all counted processes for each execution."""
        return 1000 * sum(self.cpu.values()) / self.executions if self.executions else 0.0

    def line(self) -> str:
        """Return the result as one JSON line, without the single lags."""
        fields = asdict(self)
        del fields["lags"]
        return json.dumps({**fields, "per_second": self.per_second, "cpu_millis_each": self.cpu_millis_each})

    def sentence(self) -> str:
        """Return the result for people."""
        return (
            f"{self.scenario:<14} {self.system:<22} {self.per_second:8.0f}/s  "
            f"cpu {self.cpu_millis_each:6.3f} ms each  lag p50 {self.lag_p50:8.2f} p99 {self.lag_p99:8.2f} "
            f"max {self.lag_max:8.2f} ms  missing {self.missing} doubled {self.doubled} early {self.early}"
        )


def judge(
    result: Result, notes: Sequence[tuple[int, str]], due_nanos: Mapping[str, int], *, keep_lags: int = 100_000
) -> Result:
    """Fill in lag, missing, doubled and early from what the sink noted and what was due when."""
    seen = Counter(key for _, key in notes)
    lags = sorted((at - due_nanos[key]) / 1e6 for at, key in notes if key in due_nanos)
    result.missing = sum(1 for key in due_nanos if key not in seen)
    result.doubled = sum(1 for count in seen.values() if count > 1)
    result.early = sum(1 for lag in lags if lag < 0)
    if lags:
        result.lag_p50 = percentile(lags, 50)
        result.lag_p99 = percentile(lags, 99)
        result.lag_max = lags[-1]
        result.lags = lags[:: max(1, len(lags) // keep_lags)]
    return result


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the value below which that part of an ordered list lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def write_lines(path: Path, results: Iterable[Result]) -> None:
    """Append results as JSON lines."""
    with path.open("a") as file:
        file.writelines(result.line() + "\n" for result in results)
