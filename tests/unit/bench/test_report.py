"""The benchmarks' report: medians over the rounds, and a page of which only the figures are written anew."""

from __future__ import annotations

from pathlib import Path

from bench import report
from bench.goals import table
from bench.measure import Result

PAGE = """# A page

<!-- figures: written by make bench -->
old figures
<!-- end of figures -->

After it.
"""


def round_of(number: int, *, seconds: float, cpu: float, lag: float, missing: int = 0) -> Result:
    """Return a round of a steady run."""
    lags = dict.fromkeys(("50", "90", "99", "99.9", "100"), lag)
    return Result(
        "steady-100",
        "punctual",
        100,
        seconds,
        missing=missing,
        lag=lags,
        cpu={"executor": cpu},
        extra={"resident_megabytes": {"executor": 10 * number}},
        round=number,
    )


ROUNDS = [
    round_of(1, seconds=3, cpu=0.1, lag=2),
    round_of(2, seconds=1, cpu=0.3, lag=4, missing=1),
    round_of(3, seconds=2, cpu=0.2, lag=0.5, missing=2),
]


def test_that_figures_are_medians_and_what_is_wrong_is_summed_up() -> None:
    (one,) = report.medians_of(ROUNDS).values()

    assert one.seconds == 2
    assert one.cpu_millis_each == 2
    assert one.lag["99"] == 2
    assert one.extra == {"resident_megabytes": {"executor": 20}}
    assert one.missing == 3
    assert one.round == 3


def test_that_a_result_survives_its_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("".join(f"{one.line()}\n" for one in ROUNDS))

    assert report.read(path) == ROUNDS


def test_that_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE)

    report.refresh(page, ROUNDS, "how they were made")
    report.refresh(page, ROUNDS, "how they were made")

    text = page.read_text()
    assert text.startswith("# A page\n")
    assert text.endswith("<!-- end of figures -->\n\nAfter it.\n")
    assert "old figures" not in text
    assert text.count("how they were made") == 1
    assert "steady-100-lag.svg" in text
    assert (tmp_path / "performance" / "steady-100-lag.svg").exists()


def test_that_a_goal_says_whether_it_is_reached() -> None:
    rows = table(report.medians_of(ROUNDS))

    assert "| steady-100: lag p50, ms | <= 1 | 2.00 | **no** |" in rows
    assert "| steady-100: lag p99, ms | <= 3 | 2.00 | yes |" in rows
    assert "| missing, doubled or early, in all of Punctual's runs | 0 | 3 | **no** |" in rows


def test_that_a_bare_timer_is_told_beside_the_goals() -> None:
    bare = Result("steady-100", "bare timer beside", 100, 1, lag={"50": 0.25, "99": 1.0})

    rows = table(report.medians_of([*ROUNDS, bare]))

    assert any("p50 0.25 and p99 1.00 ms; Punctual's p99 is 2.0 times that" in row for row in rows)
