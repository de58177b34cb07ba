"""docs/metrics.md is what the code makes, and the metrics keep to the house's rules."""

from __future__ import annotations

import re

import pytest

from libs.common.metrics import Family
from tools.metrics_page import PAGE, render, services

UNIT = re.compile(r"_(seconds|bytes|entries|total|info|up|keys|held|unowned|overdue|mode|shared|circuits|limited)$")
# Values of these come from our own code: states, reasons, methods, names of services.
BOUNDED = {"cause", "code", "collection", "command", "limited", "method", "mode", "operation", "outcome", "path"}
BOUNDED |= {"place", "python_version", "reason", "result", "service", "state", "version"}


def families() -> list[tuple[str, Family]]:
    return [(name, family) for name, metrics in services() for family in metrics.families]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `make docs`"


FAMILIES = list(dict.fromkeys(family for _, family in families()))
"""In the order of the page, which every worker of the test run must agree on."""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_have_units_and_labels_are_bounded(family: Family) -> None:
    assert UNIT.search("_" + family.name), family.name
    assert set(family.labels) <= BOUNDED
    assert family.documentation.endswith(".")


def test_a_metric_of_several_services_means_the_same_in_each() -> None:
    seen: dict[str, tuple[str, tuple[str, ...], str]] = {}
    for _, family in families():
        shape = (family.kind, family.labels, family.across)
        assert seen.setdefault(family.name, shape) == shape
