"""Seeds that every run takes: some of the way, and those that once found something."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.simulation.plan import Trouble
from tests.support.simulation.simulation import quickened, simulate

SEEDS = 40
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with quickened():
        yield


def test_every_promise_holds_after_every_step() -> None:
    outcomes = [simulate(seed) for seed in range(1, SEEDS + 1)]
    assert not [line for outcome in outcomes for line in (*outcome.trace, outcome.finding) if outcome.finding]
    # A simulation in which nothing happens finds nothing.
    assert sum(outcome.posts for outcome in outcomes) > 2 * SEEDS


@pytest.mark.parametrize(
    ("seed", "always"),
    [
        # An executor came back from a freeze and renewed its lease, while a poll that had seen it lost wrote the end.
        (51, frozenset({Trouble.FREEZES, Trouble.SLOW_DATABASE})),
        (84, frozenset({Trouble.FREEZES, Trouble.SLOW_MESSAGES})),
    ],
)
def test_what_was_found_once_stays_away(seed: int, always: frozenset[Trouble]) -> None:
    assert simulate(seed, always).finding == ""


def test_a_seed_always_takes_the_same_way() -> None:
    here = [simulate(seed).digest for seed in (3, 4, 5)]
    # The order in which sets of texts are walked differs from process to process.
    script = (
        "from tests.support.simulation.simulation import quickened, simulate\n"
        "with quickened(): print(*(simulate(seed).digest for seed in (3, 4, 5)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": str(ROOT)}
    there = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert there.stdout.split() == here
