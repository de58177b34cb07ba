"""The simulation finds what it is there for: each planted bug, within a bounded number of seeds."""

from __future__ import annotations

import pytest

from tests.support.simulation.plan import Trouble
from tests.support.simulation.planted_bugs import PLANTED
from tests.support.simulation.simulation import quickened, simulate

MOST_SEEDS = 200
"""Plain seeds find all of them as well, some of them after hundreds; the troubles that a bug needs save that time."""

NEARBY = {"repeated_begin_believes_an_old_memory": 270}
"""Where to begin, for what takes long: shortly before a seed that found it."""

HELPFUL = {
    "acknowledge_before_begin": {Trouble.LOST_MESSAGES, Trouble.CRASHES},
    "begin_believes_what_it_remembers_of_jobs": {Trouble.CALLERS},
    "clock_offset_is_ignored": {Trouble.SKEW},
    "expired_leases_are_not_asked_for": {Trouble.STREAM_DOUBLES},
    "grant_without_state_check": {Trouble.FREEZES, Trouble.SLOW_DATABASE, Trouble.CALLERS, Trouble.STREAM_DOUBLES},
    "grant_without_token_check": {Trouble.BAD_TARGET, Trouble.SLOW_DATABASE, Trouble.STREAM_DOUBLES},
    "lease_counts_from_the_answer": {Trouble.SLOW_DATABASE, Trouble.SLOW_MESSAGES},
    "lost_lease_is_granted_anew_under_fail": {Trouble.CRASHES},
    "nobody_settles_what_a_dead_process_left": {Trouble.CRASHES, Trouble.BAD_TARGET},
    "overlap_slot_is_released_before_the_end": {Trouble.BAD_TARGET},
    "pause_forgets_what_fired": {Trouble.CALLERS, Trouble.FREEZES},
    "repeated_begin_believes_an_old_memory": {Trouble.LOST_MESSAGES, Trouble.BAD_TARGET},
    "repeated_begin_gets_another_token": {Trouble.LOST_MESSAGES},
    "renewed_lease_is_ended_as_lost": {Trouble.FREEZES, Trouble.SLOW_DATABASE},
    "report_without_token_check": {
        *(Trouble.FREEZES, Trouble.SLOW_TARGET),
        *(Trouble.LOST_MESSAGES, Trouble.SLOW_MESSAGES),
    },
    "retry_is_not_counted": {Trouble.BAD_TARGET},
}


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_bug_is_found(name: str) -> None:
    always = frozenset(HELPFUL.get(name, ()))
    with quickened(), PLANTED[name]():
        first = NEARBY.get(name, 1)
        outcomes = (simulate(seed, always) for seed in range(first, first + MOST_SEEDS))
        found = next((outcome for outcome in outcomes if outcome.finding), None)
    assert found is not None
    # What it finds is a broken promise, and not that the planting broke the code.
    assert not found.finding.startswith("Traceback"), found.finding
