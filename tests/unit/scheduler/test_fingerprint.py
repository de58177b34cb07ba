"""The fingerprint: equal for what sends the same requests at the same times, different for all else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta, timezone

import pytest

from services.scheduler.domain.fingerprint import fingerprint
from services.scheduler.domain.job import Body, BodyPreset, Header, JobDefinition, RetryPolicy
from services.scheduler.domain.schedule import Cron, Daily, Monthly, OneTimeAt, Schedule, Weekday, Weekly
from tests.support.scheduler_values import a_definition, once

PLAIN = a_definition()
TARGET = PLAIN.target
INSTANT = datetime(2040, 1, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    "same",
    [
        replace(PLAIN, name="other", description="d", labels={"a": "b"}),
        replace(PLAIN, retry=RetryPolicy(max_attempts=9), max_consecutive_failures=9),
    ],
)
def test_what_sends_the_same_requests_is_the_same(same: JobDefinition) -> None:
    assert fingerprint("org", same) == fingerprint("org", PLAIN)


def test_an_instant_is_the_same_in_any_offset() -> None:
    there = INSTANT.astimezone(timezone(timedelta(hours=5)))
    assert fingerprint("o", replace(PLAIN, schedule=Schedule(OneTimeAt(there)))) == fingerprint(
        "o", replace(PLAIN, schedule=Schedule(OneTimeAt(INSTANT)))
    )


VARIANTS = [
    PLAIN,
    replace(PLAIN, project_id="other"),
    *(
        replace(PLAIN, target=target)
        for target in (
            replace(TARGET, prompt="Say hello!"),
            replace(TARGET, url="https://api.example.com/v2"),
            replace(TARGET, headers=(Header("A", "1"),)),
            replace(TARGET, headers=(Header("A", "2"),)),
            replace(TARGET, headers=(Header("A", "1"), Header("B", "1"))),
            replace(TARGET, body=Body(BodyPreset.OPENAI_CHAT, model="m")),
            replace(TARGET, body=Body(BodyPreset.OPENAI_RESPONSES, model="m")),
            replace(TARGET, body=Body(template="{}")),
            replace(TARGET, max_redirects=1),
        )
    ),
    *(
        replace(PLAIN, schedule=schedule)
        for schedule in (
            Schedule(Cron("0 9 * * *")),
            Schedule(Daily(time(9))),
            Schedule(Daily(time(9)), "Europe/Berlin"),
            Schedule(Daily(time(9)), start_time=INSTANT),
            Schedule(Daily(time(9)), end_time=INSTANT),
            Schedule(Daily(time(9)), jitter=timedelta(seconds=1)),
            Schedule(Monthly(1, time(9))),
            Schedule(Weekly((Weekday.MON,), time(9))),
            once(INSTANT),
        )
    ),
]


def test_what_differs_in_any_of_it_is_different() -> None:
    found = {fingerprint("org", definition) for definition in VARIANTS} | {fingerprint("other", PLAIN)}
    assert len(found) == len(VARIANTS) + 1
    assert all(len(value) == 64 and set(value) <= set("0123456789abcdef") for value in found)


def test_secret_values_stay_out_of_it() -> None:
    def with_secret(value: str) -> JobDefinition:
        return replace(PLAIN, target=replace(TARGET, headers=(Header("Authorization", value, sensitive=True),)))

    assert fingerprint("org", with_secret("a")) == fingerprint("org", with_secret("b"))


def test_it_is_the_same_in_another_process() -> None:
    definition = replace(PLAIN, schedule=Schedule(Weekly((Weekday.MON, Weekday.SUN), time(9))))
    code = (
        "from services.scheduler.domain.fingerprint import fingerprint\n"
        "from services.scheduler.domain.job import JobDefinition, Target\n"
        "from services.scheduler.domain.schedule import Schedule, Weekday, Weekly\n"
        "from datetime import time\n"
        f"definition = JobDefinition('n', Schedule(Weekly((Weekday.MON, Weekday.SUN), time(9))), "
        f"Target({TARGET.url!r}, {TARGET.prompt!r}))\n"
        "print(fingerprint('org', definition))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert output.strip() == fingerprint("org", definition)
