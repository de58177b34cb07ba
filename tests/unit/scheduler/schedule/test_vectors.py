"""The shared vectors: daylight-saving changes of two dozen zone years, year ends and leap days, judged line by line."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from services.scheduler.domain.schedule import (
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
    parse_time,
)

VECTORS = [
    json.loads(line) for line in Path(__file__).with_name("time_vectors.jsonl").read_text(encoding="utf-8").splitlines()
]


def rule_of(kind: str, params: dict[str, Any]) -> Rule:
    if kind == "cron":
        return Cron(params["expr"])
    at = parse_time(params["time"], "time")
    if kind == "daily":
        return Daily(at)
    if kind == "weekly":
        return Weekly(tuple(Weekday[day] for day in params["days"]), at)
    assert kind == "monthly"
    return Monthly(params["day"], at, MonthEnd[params["month_end"].upper()])


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{v['tz']}-{v['kind']}" for v in VECTORS])
def test_vector(vector: dict[str, Any]) -> None:
    schedule = Schedule(rule_of(vector["kind"], vector["params"]), vector["tz"])
    expected = [datetime.fromisoformat(text) for text in vector["expect_next_utc"]]

    assert fires(schedule, datetime.fromisoformat(vector["after_utc"]), len(expected)) == expected, vector["why"]
    assert all(contains(schedule, fire) for fire in expected)
