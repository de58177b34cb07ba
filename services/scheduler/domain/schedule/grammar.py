"""The cron grammar: strict, because a schedule that is misread fires at the wrong time for years.

Five fields of ASCII text, separated by spaces: minute, hour, day-of-month, month, day-of-week. A field is a list of
`*`, `n` and `a-b` with a < b; `*` and `a-b` may carry a `/step`; months and weekdays also have English names of three
letters. Everything else is refused with the name of the field, above all what croniter takes in silence and reads its
own way: equal ranges (the whole cycle), `22-2` and `fri-mon` (wrapping), `5/15`, `R` (a random time), six and seven
fields. A step beyond the field's end leaves the first value, as in Vixie cron.

Two properties hang on the text and not on the values, as in Vixie cron and Debian's:

* day-of-month and day-of-week are alternatives when both are restricted, unless the text of one begins with `*`;
* when neither minute nor hour begins with `*` the times are fixed (a gap delays them, a fold does not repeat them);
  else the expression follows elapsed time. So `0-23` and `*` name the same hours and differ on two days a year.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from libs.common.errors import InvalidArgumentError

SYNONYMS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

# Every value of every field listed singly takes under 400 characters; the limit also keeps numbers short.
MAX_LENGTH = 512

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_ITEM = re.compile(r"(?:\*|(?P<low>[0-9]+|[a-z]{3})(?:-(?P<high>[0-9]+|[a-z]{3}))?)(?:/(?P<step>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class CronFields:
    """A cron expression, expanded: for each field the ascending values that match."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    """0 is Sunday; 7 has become 0."""
    either_day: bool
    """One of day-of-month and day-of-week is enough; else both must match."""
    follows_elapsed_time: bool
    """Every instant whose reading matches is a fire; else one fire per matching reading."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five columns: its name in messages, its bounds, and its English names, of which the first is `low`."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day-of-week", 0, 7, _WEEKDAYS),
)
_LAYOUT = " ".join(field.name for field in _FIELDS)


@lru_cache(maxsize=4096)
def parse_cron(expression: str) -> CronFields:
    """Return what the expression means, or raise INVALID_CRON on `cron.expression` naming the cron field at fault."""
    if len(expression) > MAX_LENGTH:
        raise _refused(f"longer than {MAX_LENGTH} characters")
    if expression.startswith("@"):
        if expression not in SYNONYMS:
            raise _refused(f"{expression!r} is none of {', '.join(SYNONYMS)}")
        expression = SYNONYMS[expression]
    if expression != expression.strip(" "):
        raise _refused("no space may come before the minute or after the day-of-week")
    texts = re.split(" +", expression)
    if len(texts) != len(_FIELDS):
        raise _refused(
            f"{len(texts)} fields instead of five separated by spaces ({_LAYOUT}); seconds and years are not known"
        )
    minutes, hours, days, months, weekdays = map(_expand, _FIELDS, texts)
    minute_text, hour_text, day_text, _, weekday_text = texts
    return CronFields(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=tuple(sorted({weekday % 7 for weekday in weekdays})),
        either_day=not (day_text.startswith("*") or weekday_text.startswith("*")),
        follows_elapsed_time=minute_text.startswith("*") or hour_text.startswith("*"),
    )


def _expand(field: _Field, text: str) -> tuple[int, ...]:
    """Return the field's matching values in ascending order."""
    values: set[int] = set()
    for item in text.split(","):
        values.update(_expand_item(field, item))
    return tuple(sorted(values))


def _expand_item(field: _Field, item: str) -> range:
    """Return the values of one list item."""
    match = _ITEM.fullmatch(item.lower()) if item.isascii() else None
    if match is None:
        raise _refused(f"{field.name}: {item!r} is not `*`, a value, a range a-b, or one of `*` and a-b with a `/step`")
    low, high, step = match["low"], match["high"], match["step"]
    first = field.low if low is None else _value(field, low)
    last = field.high if low is None else _value(field, high or low)
    if high is not None and first >= last:
        raise _refused(f"{field.name}: in the range {item!r} the first value must be below the last")
    if step is None:
        return range(first, last + 1)
    if low is not None and high is None:
        raise _refused(f"{field.name}: in {item!r} the step needs `*` or a range before it")
    if int(step) == 0:
        raise _refused(f"{field.name}: the step of {item!r} must be at least 1")
    return range(first, last + 1, int(step))


def _value(field: _Field, text: str) -> int:
    """Return the number that a number or a name stands for in the field."""
    if not text.isdigit():
        if text not in field.names:
            known = f"one of {', '.join(name.upper() for name in field.names)}" if field.names else "a number"
            raise _refused(f"{field.name}: {text!r} is not {known}")
        return field.low + field.names.index(text)
    value = int(text)
    if not field.low <= value <= field.high:
        raise _refused(f"{field.name}: {text} is not within {field.low} to {field.high}")
    return value


def _refused(description: str) -> InvalidArgumentError:
    return InvalidArgumentError.of("cron.expression", "INVALID_CRON", description)
