"""The schedule engine: a user's rule and time zone in, UTC instants out.

Everything here is a pure function of its arguments; "now" is always one of them. Instants are aware UTC datetimes.
Naive datetimes are readings of a wall clock and never instants. The way of one answer:

    rules      what the user said, as values
    grammar    the cron text, checked and expanded
    readings   the next wall-clock reading that a rule names, blind to zones
    zones      which instants a reading has in a zone: one, two in a fold, none in a gap
    engine     the two put together: the next fire
    preview    the fires as people read them, each with the reason why it is not where they expect it
    validate   what is refused when a schedule comes in
    jitter     the due time of a fire

A rule is evaluated on the wall clock of its zone each time. Converting it to UTC once is the classic bug: 09:00 would
become 10:00 at the next daylight-saving change.
"""

from services.scheduler.domain.schedule.engine import contains, fires, first_fire, next_fire
from services.scheduler.domain.schedule.jitter import due_time
from services.scheduler.domain.schedule.preview import Adjustment, PreviewedFire, preview
from services.scheduler.domain.schedule.rules import (
    Cron,
    Daily,
    MonthEnd,
    Monthly,
    OneTimeAt,
    OneTimeLocal,
    Rule,
    Schedule,
    Weekday,
    Weekly,
)
from services.scheduler.domain.schedule.text import parse_local, parse_time
from services.scheduler.domain.schedule.validate import check_frame, check_schedule
from services.scheduler.domain.schedule.zones import TZDATA_VERSION, ZONE_NAMES

__all__ = [
    "TZDATA_VERSION",
    "ZONE_NAMES",
    "Adjustment",
    "Cron",
    "Daily",
    "MonthEnd",
    "Monthly",
    "OneTimeAt",
    "OneTimeLocal",
    "PreviewedFire",
    "Rule",
    "Schedule",
    "Weekday",
    "Weekly",
    "check_frame",
    "check_schedule",
    "contains",
    "due_time",
    "fires",
    "first_fire",
    "next_fire",
    "parse_local",
    "parse_time",
    "preview",
]
