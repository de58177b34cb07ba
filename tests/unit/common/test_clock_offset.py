"""The other machine's clock: best sample wins, noise corrects nothing, and the correction is never too large."""

from datetime import UTC, datetime, timedelta

from libs.common.clock_offset import OffsetEstimator

T0 = datetime(2026, 1, 1, tzinfo=UTC)
MS = timedelta(milliseconds=1)


def feed(estimator: OffsetEstimator, *, true_offset: timedelta, out: timedelta, back: timedelta) -> None:
    estimator.add(T0, T0 + out + true_offset, T0 + out + back)


def test_no_sample_means_no_offset() -> None:
    assert OffsetEstimator().offset() == timedelta(0) == OffsetEstimator().raw_offset()


def test_clear_offset_is_found_in_both_directions() -> None:
    for true_offset in (800 * MS, -800 * MS):
        estimator = OffsetEstimator()
        feed(estimator, true_offset=true_offset, out=2 * MS, back=2 * MS)
        assert (estimator.raw_offset(), estimator.offset()) == (true_offset, true_offset - 2 * MS)


def test_a_correction_never_goes_beyond_the_true_offset() -> None:
    for true_offset in (800 * MS, -800 * MS):
        for out, back in ((4 * MS, 0 * MS), (0 * MS, 4 * MS)):
            estimator = OffsetEstimator()
            feed(estimator, true_offset=true_offset, out=out, back=back)
            assert true_offset - 4 * MS <= estimator.offset() <= true_offset


def test_offset_within_deadband_or_half_round_trip_is_noise() -> None:
    estimator = OffsetEstimator()
    feed(estimator, true_offset=5 * MS, out=MS, back=MS)
    assert (estimator.offset(), estimator.raw_offset()) == (timedelta(0), 5 * MS)
    lopsided = OffsetEstimator()
    feed(lopsided, true_offset=timedelta(0), out=100 * MS, back=timedelta(0))
    assert (lopsided.offset(), lopsided.raw_offset()) == (timedelta(0), 50 * MS)


def test_shortest_round_trip_of_the_window_counts() -> None:
    estimator = OffsetEstimator(window=2)
    feed(estimator, true_offset=500 * MS, out=MS, back=MS)
    feed(estimator, true_offset=500 * MS, out=200 * MS, back=0 * MS)
    assert estimator.offset() == 499 * MS
    feed(estimator, true_offset=500 * MS, out=200 * MS, back=0 * MS)
    assert estimator.raw_offset() == 600 * MS


def test_own_clock_stepping_back_forgets_what_was_measured_before() -> None:
    estimator = OffsetEstimator()
    feed(estimator, true_offset=500 * MS, out=MS, back=MS)
    estimator.add(T0, T0, T0 - timedelta(seconds=1))
    assert estimator.raw_offset() == timedelta(0)


def test_a_clock_that_was_set_makes_the_old_samples_void() -> None:
    estimator = OffsetEstimator()
    feed(estimator, true_offset=timedelta(0), out=MS, back=MS)
    feed(estimator, true_offset=90_000 * MS, out=50 * MS, back=50 * MS)
    assert estimator.raw_offset() == 90_000 * MS
