"""The window of ExplainJob where the caller names only a part of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from libs.common.errors import InvalidArgumentError
from services.scheduler.usecases.explain_job import ExplainJob, Window
from tests.support.scheduler_values import CALLER, DAY, HOUR, NOW, RETENTION
from tests.support.scheduler_world import World


def test_without_bounds_it_is_the_last_day_and_the_next_hour() -> None:
    assert Window.of(None, None, NOW) == Window(NOW - DAY, NOW + HOUR)


def test_an_end_in_the_future_asks_for_what_comes_as_well() -> None:
    assert Window.of(None, NOW + 2 * DAY, NOW) == Window(NOW - DAY, NOW + 2 * DAY)


def test_an_end_in_the_past_asks_for_the_day_before_it() -> None:
    assert Window.of(None, NOW - 3 * DAY, NOW) == Window(NOW - 4 * DAY, NOW - 3 * DAY)


def test_an_instant_that_a_client_never_set_is_one_like_others() -> None:
    unset = datetime(1, 1, 1, tzinfo=UTC)
    assert Window.of(None, unset, NOW) == Window(unset, unset)


async def test_a_window_at_the_beginning_of_the_calendar_is_empty(world: World) -> None:
    job = await world.job()
    explain = ExplainJob(world.jobs, world.executions, world.clock, RETENTION)
    window = Window.of(datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC), NOW)
    assert (await explain(CALLER, job.job_id, window, after=None, limit=10)).explanations == []


def test_a_window_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        Window.of(NOW, NOW - HOUR, NOW)
    assert raised.value.reason == "END_BEFORE_START"
