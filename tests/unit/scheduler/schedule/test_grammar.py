import pytest

from libs.common.errors import InvalidArgumentError
from services.scheduler.domain.schedule.grammar import MAX_LENGTH, SYNONYMS, parse_cron

EVERY_MINUTE = tuple(range(60))
EVERY_WEEKDAY = tuple(range(7))


@pytest.mark.parametrize(
    ("expression", "field", "values"),
    [
        ("* * * * *", "minutes", EVERY_MINUTE),
        ("0 * * * *", "minutes", (0,)),
        ("05 * * * *", "minutes", (5,)),
        ("5,5,5 * * * *", "minutes", (5,)),
        ("45,15 * * * *", "minutes", (15, 45)),
        ("*/15 * * * *", "minutes", (0, 15, 30, 45)),
        ("*/59 * * * *", "minutes", (0, 59)),
        ("*/100 * * * *", "minutes", (0,)),
        ("10-40/15 * * * *", "minutes", (10, 25, 40)),
        ("1-2/30 * * * *", "minutes", (1,)),
        ("1,10-12,50-59/5 * * * *", "minutes", (1, 10, 11, 12, 50, 55)),
        ("0 0-23 * * *", "hours", tuple(range(24))),
        ("0 0 */32,1-3 * *", "days", (1, 2, 3)),
        ("0 0 * JAN,jun-Aug *", "months", (1, 6, 7, 8)),
        ("0 0 * feb-dec/5 *", "months", (2, 7, 12)),
        ("0 0 * * *", "weekdays", EVERY_WEEKDAY),
        ("0 0 * * 0-7", "weekdays", EVERY_WEEKDAY),
        ("0 0 * * 1-7", "weekdays", EVERY_WEEKDAY),
        ("0 0 * * 0", "weekdays", (0,)),
        ("0 0 * * 7", "weekdays", (0,)),
        ("0 0 * * 0,7", "weekdays", (0,)),
        ("0 0 * * */7", "weekdays", (0,)),
        ("0 0 * * */2", "weekdays", (0, 2, 4, 6)),
        ("0 0 * * 6-7", "weekdays", (0, 6)),
        ("0 0 * * 5-7/2", "weekdays", (0, 5)),
        ("0 0 * * MON-fri", "weekdays", (1, 2, 3, 4, 5)),
        ("0 0 * * sun,Wed", "weekdays", (0, 3)),
        ("0   0 *  *     *", "hours", (0,)),
    ],
)
def test_accepts(expression: str, field: str, values: tuple[int, ...]) -> None:
    assert getattr(parse_cron(expression), field) == values


@pytest.mark.parametrize(("synonym", "expression"), SYNONYMS.items())
def test_synonyms_are_exact(synonym: str, expression: str) -> None:
    assert parse_cron(synonym) == parse_cron(expression)


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("60 * * * *", "minute"),
        ("-1 * * * *", "minute"),
        ("1.5 * * * *", "minute"),
        ("+5 * * * *", "minute"),
        ("1_0 * * * *", "minute"),
        ("1-1 * * * *", "minute"),
        ("22-2 * * * *", "minute"),
        ("5/15 * * * *", "minute"),
        ("59/15 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("*/-5 * * * *", "minute"),
        ("*/ * * * *", "minute"),
        ("*5 * * * *", "minute"),
        ("**/5 * * * *", "minute"),
        ("*/5/5 * * * *", "minute"),
        ("1-5-9 * * * *", "minute"),
        ("*-5 * * * *", "minute"),
        ("1, * * * *", "minute"),
        (",1 * * * *", "minute"),
        ("1,,2 * * * *", "minute"),
        ("? * * * *", "minute"),
        ("H * * * *", "minute"),
        ("R R * * *", "minute"),
        ("r(0-30) * * * *", "minute"),
        ("jan * * * *", "minute"),
        ("\u0661 * * * *", "minute"),
        ("\uff15 * * * *", "minute"),
        ("\u00b2 * * * *", "minute"),
        ("\n0 * * * *", "minute"),
        ("0\t 0 * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 22-2 * * *", "hour"),
        ("0 H(0-7) * * *", "hour"),
        ("0 0-24 * * *", "hour"),
        ("0 0 0 * *", "day-of-month"),
        ("0 0 32 * *", "day-of-month"),
        ("0 0 L * *", "day-of-month"),
        ("0 0 15W * *", "day-of-month"),
        ("0 0 LW * *", "day-of-month"),
        ("0 0 ? * *", "day-of-month"),
        ("0 0 31-31 * *", "day-of-month"),
        ("0 0 * 0 *", "month"),
        ("0 0 * 13 *", "month"),
        ("0 0 * 1-1 *", "month"),
        ("0 0 * 6/1 *", "month"),
        ("0 0 * jan-jan *", "month"),
        ("0 0 * nov-feb *", "month"),
        ("0 0 * january *", "month"),
        ("0 0 * mon *", "month"),
        ("0 0 * * 8", "day-of-week"),
        ("0 0 * * 2-2", "day-of-week"),
        ("0 0 * * fri-mon", "day-of-week"),
        ("0 0 * * sat-sun", "day-of-week"),
        ("0 0 * * 6/1", "day-of-week"),
        ("0 0 * * mon#2", "day-of-week"),
        ("0 0 * * L5", "day-of-week"),
        ("0 0 * * 5L", "day-of-week"),
        ("0 0 * * sunday", "day-of-week"),
        ("0 0 * * \u017fun", "day-of-week"),  # Its upper case is SUN.
        ("0 0 * * ?", "day-of-week"),
        ("0 0 * * *\n", "day-of-week"),
        ("0 0 * * *\r\n", "day-of-week"),
        ("0 0 * * *\x00", "day-of-week"),
    ],
)
def test_refusal_names_the_cron_field(expression: str, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        parse_cron(expression)

    [violation] = refusal.value.violations
    assert (violation.field, violation.reason) == ("cron.expression", "INVALID_CRON")
    assert violation.description.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("expression", "description"),
    [
        ("", "1 fields instead of five"),
        ("* * * *", "4 fields instead of five"),
        ("0 * * * * *", "6 fields instead of five"),
        ("0 0 * * * * 2030", "7 fields instead of five"),
        ("0\t0\t*\t*\t*", "1 fields instead of five"),
        ("0 0 *\u3000* *", "4 fields instead of five"),
        (" 0 0 * * *", "no space may come before the minute"),
        ("0 0 * * * ", "no space may come before the minute or after the day-of-week"),
        ("@reboot", "'@reboot' is none of @hourly"),
        ("@DAILY", "'@DAILY' is none of"),
        ("@daily ", "'@daily ' is none of"),
        ("@every 5m", "'@every 5m' is none of"),
        ("0" * (MAX_LENGTH - 7) + " * * * *", "longer than 512 characters"),
    ],
)
def test_refusal_of_the_shape(expression: str, description: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        parse_cron(expression)

    assert refusal.value.reason == "INVALID_CRON"
    assert refusal.value.violations[0].description.startswith(description)


def test_every_value_listed_singly_fits_the_length() -> None:
    columns = [range(60), range(24), range(1, 32), range(1, 13), range(8)]

    parse_cron(" ".join(",".join(str(value) for value in column) for column in columns))


@pytest.mark.parametrize(
    ("expression", "either"),
    [
        ("0 0 13 * 5", True),
        ("0 0 1-31 * 5", True),
        ("0 0 13 * 1,*", True),  # Vixie cron looks at the first character only.
        ("0 0 * * 5", False),
        ("0 0 13 * *", False),
        ("0 0 */2 * 1", False),
        ("0 0 13 * */2", False),
        ("0 0 *,13 * 5", False),
    ],
)
def test_day_fields_are_alternatives_unless_one_begins_with_a_star(expression: str, either: bool) -> None:
    assert parse_cron(expression).either_day is either


@pytest.mark.parametrize(
    ("expression", "follows"),
    [
        ("30 1 * * *", False),
        ("0-59 0-23 * * *", False),
        ("0,* 1 * * *", False),
        ("* 1 * * *", True),
        ("*/30 1 * * *", True),
        ("30 * * * *", True),
        ("30 */2 * * *", True),
        ("@hourly", True),
        ("@daily", False),
    ],
)
def test_a_star_at_the_start_of_minute_or_hour_follows_elapsed_time(expression: str, follows: bool) -> None:
    assert parse_cron(expression).follows_elapsed_time is follows
