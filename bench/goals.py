"""What is aimed at, and how near the figures come to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.measure import Result

Medians = Mapping[tuple[str, str], Result]
STORES = ("mongod", "valkey")
FLAT = 5.0
"""Percent by which a process may grow that count as flat: noise of the allocator."""
Row = tuple[str, str, str, bool]
"""What is measured, the goal, the figure, and whether it is reached."""


ARQ_MILLIS = 1.05
"""CPU of an execution by arq in the burst, where the goals in milliseconds and in jobs a second were set."""


def table(medians: Medians) -> list[str]:
    """Return the goals of which there are figures, as a table, and how fast this machine is."""
    rows = ["| measured | goal | figure | reached |", "|---|---|---|---|"]
    rows += [
        f"| {what} | {goal} | {figure} | {'yes' if ok else '**no**'} |" for what, goal, figure, ok in _rows(medians)
    ]
    arq = medians.get(("burst", "arq"))
    if arq:
        cost = arq.cpu_millis_each
        told = (
            f"In the same rounds an execution cost arq {cost:.2f} ms, {cost / ARQ_MILLIS:.1f} times what it cost where"
        )
        rows += ["", f"{told} the goals in milliseconds and in jobs a second were set."]
    rows += _beside(medians)
    return rows


def _beside(medians: Medians) -> Iterator[str]:
    """Tell what lag the machine itself adds."""
    for name in ("steady-100", "steady-300"):
        ours, bare = medians.get((name, "punctual")), medians.get((name, "bare timer beside"))
        if ours and bare:
            yield ""
            yield (
                f"{name}: in the same seconds, a process that only writes prepared bytes at prepared instants had a "
                f"lag of p50 {bare.lag['50']:.2f} and p99 {bare.lag['99']:.2f} ms; Punctual's p99 is "
                f"{ours.lag['99'] / bare.lag['99']:.1f} times that."
            )


def _rows(medians: Medians) -> Iterator[Row]:
    yield from _lag(medians)
    yield from _burst(medians)
    yield from _create(medians)
    yield from _growth(medians)
    bare, executor = medians.get(("ceiling", "bare aiohttp")), medians.get(("ceiling", "executor"))
    if bare and executor:
        yield _least("executor's throughput by a bare loop's", executor.per_second / bare.per_second, 0.7)
        yield _least("a bare loop's CPU by the executor's", bare.cpu["loop"] / executor.cpu["executor"], 0.7)
    wrong = [one for (_, system), one in medians.items() if system.startswith("punctual")]
    count = sum(one.missing + one.doubled + one.early for one in wrong)
    yield "missing, doubled or early, in all of Punctual's runs", "0", str(count), count == 0


def _lag(medians: Medians) -> Iterator[Row]:
    for name, bounds in (
        ("steady-100", {"50": 1.0, "99": 3.0}),
        ("steady-300", {"99": 5.0}),
        ("recurring-same", {}),
        ("recurring-spread", {"50": 1.0, "99": 3.0}),
        ("soak", {"50": 1.0, "99": 3.0}),
        ("mixed", {"99": 5.0}),
    ):
        one = medians.get((name, "punctual"))
        for percent, bound in bounds.items():
            if one and one.lag:
                yield _most(f"{name}: lag p{percent}, ms", one.lag[percent], bound)
    one = medians.get(("steady-300", "punctual"))
    if one:
        yield _most("steady-300: CPU ms for each execution", one.cpu_millis_each, 1.2)


def _burst(medians: Medians) -> Iterator[Row]:
    ours = medians.get(("burst", "punctual"))
    for peer, speed, cost in (("arq", 2.0, 0.7), ("APScheduler + MongoDB", 4.0, 0.25)):
        theirs = medians.get(("burst", peer))
        if ours and theirs:
            yield _least(f"burst: executions/s by those of {peer}", ours.per_second / theirs.per_second, speed)
            yield _most(f"burst: CPU by that of {peer}", ours.cpu_millis_each / theirs.cpu_millis_each, cost)
    two = medians.get(("burst", "punctual, 2 executors"))
    if ours and two:
        yield _most("burst: CPU of two executors by that of one", two.cpu_millis_each / ours.cpu_millis_each, 1.1)


def _create(medians: Medians) -> Iterator[Row]:
    for name, goal in (("create-batch", 5_000), ("create-unary", 700)):
        one = medians.get((name, "punctual"))
        if one:
            yield f"{name}: jobs/s", f">= {goal}", f"{one.per_second:.0f}", one.per_second >= goal


def _growth(medians: Medians) -> Iterator[Row]:
    small, large = medians.get(("growth", "small")), medians.get(("growth", "large"))
    if small and large:
        jobs = large.extra.get("jobs", "many")
        yield _most(
            "growth: CPU for each execution, large by small", large.cpu_millis_each / small.cpu_millis_each, 1.3
        )
        yield _most("growth: lag p50, large by small", large.lag["50"] / small.lag["50"], 1.3)
        for call, times in large.extra["call_millis"].items():
            before = small.extra["call_millis"][call]["50"]
            yield _most(f"growth: {call} p50, large ({jobs} jobs) by small", times["50"] / before, 1.3)
    for name, system in (("idle", "punctual"), ("growth-idle", "large")):
        still = medians.get((name, system))
        if still:
            percent = still.extra["cpu_percent_all"]
            yield f"{name}: CPU of all, percent of a core", "< 3", f"{percent:.1f}", percent < 3
    soak = medians.get(("soak", "punctual"))
    if soak:
        first, hourly = soak.extra["megabytes_at_first"], soak.extra["megabytes_an_hour"]
        hours = soak.seconds / 3600
        grown = max(100 * hourly[name] * hours / first[name] for name in first if name not in STORES)
        yield _most(f"soak: growth of the service that grew most in {60 * hours:.0f} minutes, percent", grown, FLAT)
    start = medians.get(("idle", "punctual"))
    if start:
        sizes = start.extra["resident_megabytes"]
        ours = max(size for process, size in sizes.items() if process not in STORES)
        yield "idle: memory of the largest service, MB", "< 150", str(ours), ours < 150


def _least(what: str, figure: float, goal: float) -> Row:
    return what, f">= {goal:g}", f"{figure:.2f}", figure >= goal


def _most(what: str, figure: float, goal: float) -> Row:
    return what, f"<= {goal:g}", f"{figure:.2f}", figure <= goal
