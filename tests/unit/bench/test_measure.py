"""The benchmarks' judgement: what they call missing, doubled and early, and their percentiles."""

from __future__ import annotations

import pytest

from bench.measure import Result, judge, percentile, slope_per_second

MILLI = 1_000_000


def test_that_every_arrival_is_judged_by_its_own_due_time() -> None:
    due = {"a": 10 * MILLI, "b": 20 * MILLI, "c": 30 * MILLI, "d": 40 * MILLI}
    notes = [(11 * MILLI, "a"), (25 * MILLI, "b"), (26 * MILLI, "b"), (29 * MILLI, "c"), (50 * MILLI, "of another run")]

    result = judge(Result("burst", "punctual", 4), notes, due)

    assert (result.missing, result.doubled, result.early) == (1, 1, 1)
    assert not result.is_exact
    assert result.lag["0"] == -1
    assert result.lag["100"] == 6


def test_that_one_of_each_and_none_early_is_exact() -> None:
    result = judge(Result("burst", "punctual", 1), [(10 * MILLI, "a")], {"a": 10 * MILLI})

    assert result.is_exact
    assert result.lag["50"] == 0


def test_that_arrivals_are_counted_in_slices_after_the_first_due_instant() -> None:
    due = {"a": 0, "b": 0, "c": 0}

    result = judge(Result("burst", "punctual", 3), [(1, "a"), (99 * MILLI, "b"), (250 * MILLI, "c")], due)

    assert result.arrivals == [2, 0, 1]


def test_that_nothing_arrived_is_all_missing_and_has_no_lag() -> None:
    result = judge(Result("burst", "punctual", 2), [], {"a": 1, "b": 2})

    assert result.missing == 2
    assert result.lag == {}


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (99.9, 100), (100, 100)]
)
def test_that_a_percentile_is_the_least_value_that_so_many_do_not_exceed(percent: float, value: float) -> None:
    assert percentile(range(1, 101), percent) == value


def test_that_a_slope_is_by_least_squares() -> None:
    assert slope_per_second([(0, 5), (10, 25), (20, 45)]) == pytest.approx(2)
    assert slope_per_second([(3, 5)]) == 0
    assert slope_per_second([(3, 5), (3, 7)]) == 0
