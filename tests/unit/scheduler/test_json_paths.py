"""Which JSONPaths a check may have: those whose work is bounded by the length of the answer."""

from __future__ import annotations

import pytest

from services.scheduler.adapters.rpc.json_paths import path_problem


@pytest.mark.parametrize(
    "path",
    ["$.a", "$..a", "$.a[*].b[1:3]", "$.a[?@.b == 1 && @.c]", "$['a','b'][0,1]", "$[?length(@.a) > $.least]"],
)
def test_a_path_may_loop_over_an_answer(path: str) -> None:
    assert path_problem(path) is None


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("$..a..b", "more than 1 descent"),
        ("$" + "[0,0]" * 5, "multiplies the work"),
        ("$[?" + "||".join(["@.a"] * 17) + "]", "multiplies the work"),
        ("$[?$[?@ == 1]]", "one value at most"),
        ("$[?@[*] && @.a]", "one value at most"),
        ("$[?count($..*) > 1]", "one value at most"),
        ("$[?match(@.a, '(a+)+b')]", "match"),
        ("$[", "is not an RFC 9535 JSONPath"),
    ],
)
def test_one_whose_work_is_a_multiple_of_that_is_refused(path: str, problem: str) -> None:
    assert problem in (path_problem(path) or "")
