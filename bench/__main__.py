"""`python -m bench`: runs the scenarios and prints their figures; results go to bench/out."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.measure import Result, write_lines
from bench.scenarios import burst, steady

OUT = Path(__file__).parent / "out"
Scenario = Callable[[Path], Awaitable[Result]]


def scenarios(*, quick: bool) -> dict[str, Scenario]:
    """Return the scenarios by name; quick ones are smaller, not different."""
    count = 2_000 if quick else 10_000
    seconds = 10 if quick else 30
    return {
        "burst": lambda folder: burst.run(folder, count=count),
        "burst-2": lambda folder: burst.run(folder, count=count, executors=2),
        "steady-100": lambda folder: steady.run(folder, per_second=100, seconds=seconds),
        "steady-300": lambda folder: steady.run(folder, per_second=300, seconds=seconds),
    }


async def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="scenarios to run; all without a name")
    parser.add_argument("--quick", action="store_true", help="smaller loads, under two minutes in all")
    arguments = parser.parse_args()
    known = scenarios(quick=arguments.quick)
    OUT.mkdir(exist_ok=True)
    for name in arguments.names or known:
        with tempfile.TemporaryDirectory(prefix="punctual-bench-") as folder:
            result = await known[name](Path(folder))
        print(result.sentence())
        print("               cpu seconds", {key: round(value, 2) for key, value in result.cpu.items()}, result.extra)
        write_lines(OUT / "results.jsonl", [result])


if __name__ == "__main__":
    asyncio.run(main())
