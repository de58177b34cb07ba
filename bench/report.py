"""Makes the report out of results: medians over the rounds, the goals, the plots. Knows nothing but result lines."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import goals, svg
from bench.measure import SLICE_MILLIS, Result

Group = tuple[str, str]
PAGE_PLOTS = ("burst-rate", "burst-cpu", "steady-100-lag", "steady-300-lag", "steady-300-cpu", "ceiling-cpu")
"""Of all plots, those that the page in docs/ shows."""
_BEGIN, _END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"


def read(path: Path) -> list[Result]:
    """Return the results of a file of lines."""
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return [Result.parse(line) for line in lines if line["kind"] == "result"]


def write(results: Sequence[Result], folder: Path, about: str) -> Path:
    """Write the report and its plots; return where it is."""
    medians = medians_of(results)
    plots = _plots(medians)
    for name, text in plots.items():
        (folder / f"{name}.svg").write_text(text)
    parts = ["# Benchmarks", "", *_summary(medians, about, "##"), "", "## Plots", ""]
    parts += [f"![{name}]({name}.svg)" for name in plots]
    parts += ["", "## What only some scenarios have", ""]
    parts += [
        f"- **{scenario}, {system}**: `{json.dumps(one.extra)}`"
        for (scenario, system), one in medians.items()
        if one.extra
    ]
    path = folder / "report.md"
    path.write_text("\n".join(parts) + "\n")
    return path


def refresh(page: Path, results: Sequence[Result], about: str) -> None:
    """Write the figures into a page between its marks, and the plots that it shows into a folder of its name."""
    medians = medians_of(results)
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    plots = {name: text for name, text in _plots(medians).items() if name in PAGE_PLOTS}
    for name, text in plots.items():
        (folder / f"{name}.svg").write_text(text)
    parts = [*_summary(medians, about, "###"), "", *(f"![{name}]({folder.name}/{name}.svg)" for name in plots)]
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text("\n".join([f"{before}{_BEGIN}", "", *parts, "", f"{_END}{after}"]))


def medians_of(results: Sequence[Result]) -> dict[Group, Result]:
    """Return the medians over the rounds."""
    grouped: defaultdict[Group, list[Result]] = defaultdict(list)
    for result in results:
        grouped[result.scenario, result.system].append(result)
    return {group: median(of_group) for group, of_group in grouped.items()}


def _summary(medians: dict[Group, Result], about: str, heading: str) -> list[str]:
    parts = [about, "", f"{heading} Goals", "", *goals.table(medians)]
    return [*parts, "", f"{heading} All figures", "", *_figures(medians)]


def median(results: Sequence[Result]) -> Result:
    """Return the result whose figures are the medians of these; what is counted as wrong is summed up."""
    # The one in the middle by CPU lends what has no median, such as its arrivals.
    chosen = sorted(results, key=lambda one: one.cpu_millis_each)[(len(results) - 1) // 2]
    return Result(
        scenario=chosen.scenario,
        system=chosen.system,
        executions=chosen.executions,
        seconds=statistics.median(one.seconds for one in results),
        missing=sum(one.missing for one in results),
        doubled=sum(one.doubled for one in results),
        early=sum(one.early for one in results),
        lag={percent: statistics.median(one.lag.get(percent, 0.0) for one in results) for percent in chosen.lag},
        arrivals=chosen.arrivals,
        cpu=chosen.cpu,
        extra={name: _middle([one.extra[name] for one in results if name in one.extra]) for name in chosen.extra},
        round=len(results),
    )


def _middle(values: Sequence[Any]) -> Any:
    """Return the median of numbers, or of the numbers that groups of them have under each name; else the first."""
    first = values[0]
    if isinstance(first, dict):
        return {name: _middle([one[name] for one in values if name in one]) for name in first}
    return statistics.median(values) if isinstance(first, int | float) else first


def _figures(medians: dict[Group, Result]) -> list[str]:
    rows = [
        "| scenario | system | count | a second | CPU ms each | lag p50 | p90 | p99 | p99.9 | max | wrong | rounds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|",
    ]
    for (scenario, system), one in medians.items():
        lags = " | ".join(f"{one.lag[p]:.2f}" if one.lag else "-" for p in ("50", "90", "99", "99.9", "100"))
        wrong = "none" if one.is_exact else f"{one.missing} missing, {one.doubled} doubled, {one.early} early"
        rate, cpu = (f"{one.per_second:.0f}", f"{one.cpu_millis_each:.3f}") if one.executions else ("-", "-")
        rows.append(f"| {scenario} | {system} | {one.executions} | {rate} | {cpu} | {lags} | {wrong} | {one.round} |")
    return rows


def _plots(medians: dict[Group, Result]) -> dict[str, str]:
    plots: dict[str, str] = {}
    for scenario in dict.fromkeys(scenario for scenario, _ in medians):
        of_scenario = {system: one for (name, system), one in medians.items() if name == scenario}
        lags = {
            system: [(float(percent), lag) for percent, lag in one.lag.items()]
            for system, one in of_scenario.items()
            if one.lag
        }
        if lags:
            title = f"{scenario}: lag by percentile"
            plots[f"{scenario}-lag"] = svg.lines(title, "percentile", "milliseconds", lags, log_y=True)
        rates = {
            system: [
                (index * SLICE_MILLIS / 1000, count * 1000 / SLICE_MILLIS) for index, count in enumerate(one.arrivals)
            ]
            for system, one in of_scenario.items()
            if len(one.arrivals) > 1
        }
        if rates:
            title = f"{scenario}: arrivals at the target"
            plots[f"{scenario}-rate"] = svg.lines(title, "seconds after the first due instant", "a second", rates)
        bars = {
            system: {process: 1000 * used / one.executions for process, used in one.cpu.items()}
            for system, one in of_scenario.items()
            if one.executions and one.cpu
        }
        if bars:
            plots[f"{scenario}-cpu"] = svg.stacked(f"{scenario}: CPU", "milliseconds for each execution", bars)
    return plots
