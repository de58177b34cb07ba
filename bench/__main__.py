"""`python -m bench`: runs the scenarios, and leaves result lines, a report and plots in bench/out."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import report
from bench.measure import append_line
from bench.peers import running
from bench.runs import Run
from bench.scenarios import LEFT_OUT_WHEN_QUICK, ONLY_BY_NAME, SCENARIOS

OUT = Path(__file__).parent / "out"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"scenarios: {', '.join(SCENARIOS)}; all short ones without a name")
    parser.add_argument("--quick", action="store_true", help="smaller loads, under two minutes in all")
    parser.add_argument("--rounds", type=int, default=1, help="the report shows medians over so many")
    parser.add_argument("--no-peers", action="store_true", help="leave the other schedulers out")
    parser.add_argument("--growth-jobs", type=int, default=0, help="jobs that growth loads; default 200,000")
    parser.add_argument("--append", action="store_true", help="add to the results that are there")
    parser.add_argument("--out", type=Path, default=OUT, help="where results go")
    parser.add_argument("--page", type=Path, help="a page whose figures are written anew, such as docs/performance.md")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return arguments


async def main() -> None:
    """Run what the command line asks for."""
    arguments = parse()
    with_peers = not arguments.no_peers and running.installed()
    if not arguments.no_peers and not with_peers:
        print(f"the peers are left out: there is no {running.PYTHON}; `make bench` makes it", file=sys.stderr)
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = arguments.out / "results.jsonl"
    if not arguments.append:
        lines.unlink(missing_ok=True)
    began = time.monotonic()
    failed = 0
    for number in range(1, arguments.rounds + 1):
        failed += await _run_once(arguments, number, lines, with_peers=with_peers)
    if not lines.exists():
        sys.exit("nothing was measured")
    results, about = report.read(lines), _about(arguments, time.monotonic() - began)
    print(f"\n{report.write(results, arguments.out, about)}")
    if arguments.page:
        report.refresh(arguments.page, results, about)
    if failed:
        sys.exit(f"{failed} scenarios failed")


async def _run_once(arguments: argparse.Namespace, number: int, lines: Path, *, with_peers: bool) -> int:
    """Run every scenario once; return how many failed, which is no reason to lose the others' figures."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="punctual-bench-") as folder:
        jobs = arguments.growth_jobs or (5_000 if arguments.quick else 200_000)
        run = Run(Path(folder), quick=arguments.quick, with_peers=with_peers, growth_jobs=jobs)
        try:
            for name in _chosen(arguments.names, quick=arguments.quick):
                try:
                    results = await SCENARIOS[name](run)
                except Exception:  # noqa: BLE001 - whatever went wrong went wrong in one scenario
                    failed += 1
                    traceback.print_exc()
                    continue
                for result in results:
                    result.round = number
                    print(result.sentence(), flush=True)
                    append_line(lines, result.line())
        finally:
            await run.close()
    return failed


def _chosen(names: Sequence[str], *, quick: bool) -> Sequence[str]:
    left_out = ONLY_BY_NAME | LEFT_OUT_WHEN_QUICK if quick else ONLY_BY_NAME
    return names or [name for name in SCENARIOS if name not in left_out]


def _about(arguments: argparse.Namespace, seconds: float) -> str:
    """Say when, on what and how the figures were made."""
    kind = "quick, small loads" if arguments.quick else "full"
    cores, load = os.cpu_count(), os.getloadavg()[1]
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {kind}; the last part took {seconds:.0f} s; "
        f"{cores} cores, Python {platform.python_version()}; load average of five minutes at the end {load:.1f}. "
        "Stores, services and the target share the machine. Lags in milliseconds; CPU is user and system time of all "
        "services and stores, without the target."
    )


if __name__ == "__main__":
    asyncio.run(main())
