"""Runs seeds until one finds something or all are through: `python -m tests.simulation --seeds 1000 --first 1`.

`--bug` plants a bug first, to see what it takes to find it; `--trace` shows the way of every seed, found or not.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import time

from tests.support.simulation.planted_bugs import PLANTED
from tests.support.simulation.simulation import Outcome, quickened, simulate

COLLECT_EVERY = 50
"""Seeds between collections of what they left; collecting all the time would take a tenth of it."""


def main() -> int:
    """Run the seeds that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds")
    parser.add_argument("--first", type=int, default=1, help="the first one")
    parser.add_argument("--bug", choices=sorted(PLANTED), help="plant this bug")
    parser.add_argument("--keep-going", action="store_true", help="go on after a finding")
    options = parser.parse_args()
    began, found = time.process_time(), 0
    total = Outcome(0)
    planted = PLANTED[options.bug]() if options.bug else contextlib.nullcontext()
    with quickened(), planted:
        for number in range(options.seeds):
            outcome = simulate(options.first + number)
            total = _sum(total, outcome)
            if outcome.finding:
                found += 1
                print("\n".join((*outcome.trace, outcome.finding)), flush=True)
                print(f"again: make simulate SEED={outcome.seed} SEEDS=1\n", flush=True)
                if not options.keep_going:
                    break
            if number % COLLECT_EVERY == 0:
                gc.collect()
    seconds = time.process_time() - began
    print(
        f"{number + 1} seeds, {found} findings; {total.executions} executions, {total.posts} requests,"
        f" {total.steps} checked steps, {total.virtual_seconds / 60:.0f} virtual minutes;"
        f" {seconds:.1f} s of one core, {(number + 1) / seconds * 60:.0f} seeds a minute"
    )
    return 1 if found else 0


def _sum(one: Outcome, other: Outcome) -> Outcome:
    return Outcome(
        other.seed,
        executions=one.executions + other.executions,
        posts=one.posts + other.posts,
        steps=one.steps + other.steps,
        virtual_seconds=one.virtual_seconds + other.virtual_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
