from datetime import UTC, datetime, time, timedelta

from services.scheduler.domain.schedule import Cron, Daily, OneTimeAt, Schedule, due_time, fires

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_without_jitter_a_fire_is_due_at_once() -> None:
    assert due_time(Schedule(Daily(time(12))), "job", NOON) == NOON


def test_the_offset_never_changes() -> None:
    schedule = Schedule(Daily(time(12)), jitter=HOUR)

    # Pinned: another value after an upgrade would move the due times of every job that exists.
    assert due_time(schedule, "01JZJOB", NOON) == NOON + timedelta(minutes=13, seconds=51, milliseconds=353)


def test_the_offset_is_in_whole_milliseconds_and_spread_over_the_whole_span() -> None:
    schedule = Schedule(OneTimeAt(NOON), jitter=timedelta(milliseconds=4))
    offsets = [due_time(schedule, f"job-{number}", NOON) - NOON for number in range(500)]

    counts = {n: offsets.count(timedelta(milliseconds=n)) for n in range(5)}
    assert sum(counts.values()) == 500
    assert min(counts.values()) > 70


def test_fires_of_one_job_have_different_offsets() -> None:
    schedule = Schedule(Daily(time(12)), jitter=HOUR)
    found = fires(schedule, NOON, 20)

    assert len({due_time(schedule, "job", fire) - fire for fire in found}) == 20


def test_the_following_fire_is_never_reached() -> None:
    schedule = Schedule(Cron("* * * * *"), jitter=HOUR)
    offsets = [due_time(schedule, f"job-{number}", NOON) - NOON for number in range(2000)]

    assert max(offsets) < timedelta(minutes=1)
    assert max(offsets) > timedelta(seconds=59)


def test_the_span_ends_a_millisecond_before_the_following_fire() -> None:
    schedule = Schedule(Cron("* * * * *"), jitter=timedelta(minutes=1))

    # This job's hash is the largest of 60,001 choices; there are 60,000, and it wraps to another.
    assert due_time(schedule, "job-73451", NOON) < NOON + timedelta(minutes=1)


def test_the_last_fire_has_the_whole_span() -> None:
    schedule = Schedule(Cron("* * * * *"), end_time=NOON, jitter=HOUR)

    assert max(due_time(schedule, f"job-{number}", NOON) for number in range(100)) > NOON + timedelta(minutes=50)


def test_less_than_a_millisecond_is_no_jitter() -> None:
    schedule = Schedule(OneTimeAt(NOON), jitter=timedelta(microseconds=999))

    assert {due_time(schedule, f"job-{number}", NOON) for number in range(20)} == {NOON}
