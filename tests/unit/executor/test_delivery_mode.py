"""How due work is fetched, as Redis comes and goes."""

from __future__ import annotations

import pytest

from services.executor.domain.delivery_mode import DeliveryMode, Mode, ModeChange


@pytest.fixture
def delivery() -> DeliveryMode:
    return DeliveryMode(silence_seconds=1.5, recovery_seconds=5.0)


def polling(delivery: DeliveryMode) -> DeliveryMode:
    delivery.read_started(0, 0.0)
    assert delivery.check(1.5) == ModeChange(Mode.STREAMS, Mode.POLLING)
    return delivery


def test_reads_that_are_answered_keep_the_streams(delivery: DeliveryMode) -> None:
    for now in (0.0, 1.0, 2.0, 3.0):
        assert delivery.read_started(0, now) is None
        assert delivery.read_succeeded(0, now + 1.0) is None
    assert delivery.mode is Mode.STREAMS


def test_a_hanging_read_counts_as_an_outage(delivery: DeliveryMode) -> None:
    delivery.read_started(0, 0.0)
    assert delivery.check(1.4) is None
    assert delivery.check(1.5) == ModeChange(Mode.STREAMS, Mode.POLLING)


def test_failing_reads_are_an_outage_from_the_first_one_on(delivery: DeliveryMode) -> None:
    for now in (0.0, 0.5, 1.0):
        assert delivery.read_started(0, now) is None
        assert delivery.read_failed(0, now) is None
    assert delivery.read_failed(0, 1.5) == ModeChange(Mode.STREAMS, Mode.POLLING)


def test_not_reading_says_nothing_about_redis(delivery: DeliveryMode) -> None:
    delivery.read_started(0, 0.0)
    delivery.reading_stopped(0)
    assert delivery.check(100.0) is None


def test_one_silent_shard_is_enough(delivery: DeliveryMode) -> None:
    delivery.read_started(1, 0.0)
    for now in (0.0, 1.0):
        delivery.read_started(0, now)
        delivery.read_succeeded(0, now)
    assert delivery.check(1.5) == ModeChange(Mode.STREAMS, Mode.POLLING)


def test_recovery_begins_when_every_shard_answers_and_ends_after_a_while(delivery: DeliveryMode) -> None:
    polling(delivery)
    assert delivery.read_succeeded(0, 10.0) == ModeChange(Mode.POLLING, Mode.RECOVERING)
    assert delivery.check(14.9) is None
    assert delivery.check(15.0) == ModeChange(Mode.RECOVERING, Mode.STREAMS)


def test_a_failure_while_recovering_goes_back_to_polling_at_once(delivery: DeliveryMode) -> None:
    polling(delivery).read_succeeded(0, 10.0)
    assert delivery.read_failed(0, 10.1) == ModeChange(Mode.RECOVERING, Mode.POLLING)


def test_polling_goes_on_while_another_shard_is_silent(delivery: DeliveryMode) -> None:
    delivery.read_started(1, 0.0)
    polling(delivery)
    assert delivery.read_succeeded(0, 2.0) is None
    assert delivery.mode is Mode.POLLING


def test_recovery_does_not_wait_for_reads_that_have_just_begun(delivery: DeliveryMode) -> None:
    polling(delivery)
    delivery.read_started(1, 2.0)
    assert delivery.read_succeeded(0, 2.5) == ModeChange(Mode.POLLING, Mode.RECOVERING)
