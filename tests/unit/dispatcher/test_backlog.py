"""How often the stream is asked how full it is: the fuller, the more often."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.errors import UnavailableError
from libs.common.testing.fake_clock import FakeClock, settle
from services.dispatcher.usecases.backlog import Backlog
from tests.unit.dispatcher.fake_ports import FakeStream, entry


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stream(clock: FakeClock) -> FakeStream:
    return FakeStream(clock)


@pytest.fixture
async def backlog(stream: FakeStream, clock: FakeClock) -> Backlog:
    backlog = Backlog(stream, clock, 50)
    await backlog.look()
    return backlog


async def fill(stream: FakeStream, count: int) -> None:
    await stream.add([entry(f"e{n}") for n in range(count)])


async def test_a_stream_that_is_far_from_full_is_looked_at_now_and_then(
    backlog: Backlog, stream: FakeStream, clock: FakeClock
) -> None:
    look = asyncio.create_task(backlog.look())
    backlog.note_delivered(10)
    await clock.advance(1.9)
    assert not look.done()
    assert backlog.entries == 10
    await fill(stream, 3)
    await clock.advance(0.1)
    await look
    assert backlog.entries == 3


async def test_what_is_delivered_ends_the_wait_once_it_is_much(
    backlog: Backlog, stream: FakeStream, clock: FakeClock
) -> None:
    look = asyncio.create_task(backlog.look())
    await fill(stream, 11)
    backlog.note_delivered(10)
    await settle()
    assert not look.done()
    backlog.note_delivered(1)
    await settle()
    assert look.done()
    assert backlog.entries == 11
    # From here on each look asks at once.
    await backlog.look()


async def test_while_the_stream_does_not_answer_each_look_asks(backlog: Backlog, stream: FakeStream) -> None:
    await fill(stream, 11)
    backlog.note_delivered(11)
    stream.available = False
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await backlog.look()
        assert backlog.entries is None
    stream.available = True
    await backlog.look()
    assert backlog.entries == 11
