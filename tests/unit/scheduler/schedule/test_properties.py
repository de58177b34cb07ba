"""The engine against an oracle that shares nothing with it: a walk over UTC minutes with a cron matcher of its own.

The walk knows neither croniter, nor turns, nor resolution. It looks at the clock each minute and remembers the latest
reading shown: a fixed rule fires when the clock reaches or jumps over a matching reading for the first time, an elapsed
one whenever the clock shows one.
"""

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.domain.schedule import (
    ZONE_NAMES,
    Cron,
    Daily,
    MonthEnd,
    Monthly,
    Rule,
    Schedule,
    Weekday,
    Weekly,
    contains,
    fires,
    next_fire,
    readings,
)
from services.scheduler.domain.schedule.grammar import parse_cron
from services.scheduler.domain.schedule.zones import find_zone, turns

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

# Whole-hour, half-hour, quarter-hour, two-hour, three-hour and whole-day changes, both hemispheres, negative daylight
# saving, and zones that changed their standard time.
ZONES = [
    "Africa/Casablanca",
    "America/Caracas",
    "America/Havana",
    "America/New_York",
    "America/Nuuk",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Casey",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Europe/London",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kwajalein",
    "UTC",
]
TURNS = [(name, turn) for name in ZONES for year in range(1986, 2026) for turn in turns(find_zone(name), year)]

Matcher = Callable[[datetime], bool]


@st.composite
def cron_fields(draw: st.DrawFn, low: int, high: int) -> tuple[str, frozenset[int]]:
    """One cron column as text, and the values that it means."""
    whole = range(low, high + 1)
    first, last = sorted(draw(st.lists(st.sampled_from(whole), min_size=2, max_size=2, unique=True)))
    step = draw(st.integers(1, 45))
    text, values = draw(
        st.sampled_from(
            [
                ("*", whole),
                ("*", whole),
                (f"*/{step}", whole[::step]),
                (f"{first}", (first,)),
                (f"{first},{last}", (first, last)),
                (f"{first}-{last}", range(first, last + 1)),
                (f"{first}-{last}/{step}", range(first, last + 1, step)),
            ]
        )
    )
    return text, frozenset(values)


@st.composite
def cron_rules(draw: st.DrawFn) -> tuple[Rule, Matcher, bool]:
    """A cron rule, a matcher of readings, and whether its times are fixed."""
    minute_text, minutes = draw(cron_fields(0, 59))
    hour_text, hours = draw(cron_fields(0, 23))
    day_text, days = draw(cron_fields(1, 31))
    month_text, months = draw(st.one_of(st.just(("*", frozenset(range(1, 13)))), cron_fields(1, 12)))
    weekday_text, weekdays = draw(cron_fields(0, 6))
    either = day_text[0] != "*" and weekday_text[0] != "*"

    def matches(reading: datetime) -> bool:
        if reading.minute not in minutes or reading.hour not in hours or reading.month not in months:
            return False
        by_day, by_weekday = reading.day in days, reading.isoweekday() % 7 in weekdays
        return by_day or by_weekday if either else by_day and by_weekday

    expression = f"{minute_text} {hour_text} {day_text} {month_text} {weekday_text}"
    return Cron(expression), matches, minute_text[0] != "*" and hour_text[0] != "*"


@st.composite
def calendar_rules(draw: st.DrawFn) -> tuple[Rule, Matcher, bool]:
    """A daily, weekly or monthly rule, with its matcher."""
    # Most turns are in the small hours.
    at = time(draw(st.one_of(st.integers(0, 3), st.integers(0, 23))), draw(st.integers(0, 59)))
    weekdays = tuple(draw(st.sets(st.sampled_from(Weekday), min_size=1)))
    day = draw(st.integers(1, 31))

    def is_monthly(reading: datetime) -> bool:
        return reading.day == day

    def is_monthly_or_last(reading: datetime) -> bool:
        return reading.day == day or (reading.day < day and (reading + DAY).day == 1)

    def at_time(of_day: Matcher) -> Matcher:
        return lambda reading: (reading.hour, reading.minute) == (at.hour, at.minute) and of_day(reading)

    rule, matcher = draw(
        st.sampled_from(
            [
                (Daily(at), at_time(lambda _: True)),
                (Weekly(weekdays, at), at_time(lambda reading: reading.weekday() in weekdays)),
                (Monthly(day, at), at_time(is_monthly)),
                (Monthly(day, at, MonthEnd.LAST_DAY), at_time(is_monthly_or_last)),
            ]
        )
    )
    return rule, matcher, True


def walk(zone: ZoneInfo, matches: Matcher, fixed: bool, after: datetime, end: datetime) -> list[datetime]:
    """Return the fires in (after, end], minute by minute; `after` is a whole minute."""

    def clock(instant: datetime) -> datetime:
        return instant.astimezone(zone).replace(tzinfo=None, fold=0)

    # The clock's latest reading so far: `after` may lie in the second pass of a fold, the longest here has three hours.
    shown = max(clock(after - n * MINUTE) for n in range(200))
    found = []
    instant = after + MINUTE
    while instant <= end:
        reading = clock(instant)
        if fixed:
            skipped = range(1, (reading - shown) // MINUTE + 1)
            fire = any(matches(shown + n * MINUTE) for n in skipped)
            shown = max(shown, reading)
        else:
            fire = matches(reading)
        if fire:
            found.append(instant)
        instant += MINUTE
    return found


near_a_turn = st.builds(
    lambda place, before: (place[0], place[1] - before * MINUTE), st.sampled_from(TURNS), st.integers(-90, 1600)
)
any_rule = st.one_of(cron_rules(), calendar_rules())


@settings(derandomize=True, max_examples=200, deadline=None)
@given(place=near_a_turn, ruled=any_rule)
def test_agrees_with_a_minute_walk_around_every_kind_of_turn(
    place: tuple[str, datetime], ruled: tuple[Rule, Matcher, bool]
) -> None:
    (name, after), (rule, matches, fixed) = place, ruled
    end = after + timedelta(hours=36)
    expected = walk(find_zone(name), matches, fixed, after, end)

    found = fires(Schedule(rule, name, end_time=end), after, len(expected[:40]) + 1)

    assert found[:40] == expected[:40]
    assert len(expected) >= 40 or len(found) == len(expected)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(ZONE_NAMES)),
    day=st.integers(0, 14_000),
    ruled=any_rule,
)
def test_agrees_with_a_minute_walk_in_every_zone(name: str, day: int, ruled: tuple[Rule, Matcher, bool]) -> None:
    rule, matches, fixed = ruled
    after = datetime(1990, 1, 1, tzinfo=UTC) + day * DAY
    expected = walk(find_zone(name), matches, fixed, after, after + DAY)

    found = fires(Schedule(rule, name, end_time=after + DAY), after, len(expected[:20]) + 1)

    assert found[:20] == expected[:20]
    assert len(expected) >= 20 or len(found) == len(expected)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(ZONE_NAMES)),
    after=st.datetimes(timezones=st.just(UTC)),
    step=st.timedeltas(timedelta(0), timedelta(days=3)),
    ruled=any_rule,
)
def test_next_is_later_and_monotonic_at_any_instant(
    name: str, after: datetime, step: timedelta, ruled: tuple[Rule, Matcher, bool]
) -> None:
    schedule = Schedule(ruled[0], name)

    fire = next_fire(schedule, after)

    if fire is None:
        return
    assert fire > after
    assert contains(schedule, fire)
    between = after + min(step, fire - after - timedelta.resolution)
    assert next_fire(schedule, between) == fire


@settings(derandomize=True, max_examples=100, deadline=None)
@given(minute=st.integers(0, 130 * 366 * 24 * 60), ruled=cron_rules())
def test_a_look_at_the_days_to_come_finds_what_a_search_finds(minute: int, ruled: tuple[Rule, Matcher, bool]) -> None:
    rule, matches, _ = ruled
    assert isinstance(rule, Cron)
    after = datetime(1990, 1, 1, tzinfo=UTC).replace(tzinfo=None) + minute * MINUTE

    soon = readings._next_soon(parse_cron(rule.expression), after)

    found = readings._search(rule.expression, after)
    assert soon == found or (soon is None and (found is None or found - after > timedelta(days=300)))
    assert soon is None or (soon > after and matches(soon))
