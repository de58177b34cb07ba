"""The loop under every duty: pace, backoff, what is logged, what passes through."""

import asyncio
from collections.abc import Callable

import pytest
import structlog

from libs.common.errors import UnavailableError
from libs.common.supervised_loop import Backoff, Heartbeat, run_forever
from libs.common.testing.fake_clock import FakeClock


class Duty:
    def __init__(self) -> None:
        self.runs = 0
        self.failure: Callable[[], Exception] | None = None

    async def run_once(self) -> None:
        self.runs += 1
        if self.failure is not None:
            raise self.failure()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_runs_at_its_interval_until_stopped(clock: FakeClock) -> None:
    duty, stopping = Duty(), asyncio.Event()
    loop = asyncio.create_task(run_forever("duty", duty.run_once, interval=10, stopping=stopping, clock=clock))
    await clock.advance(25)
    assert duty.runs == 3
    stopping.set()
    await loop
    assert duty.runs == 3


@pytest.mark.parametrize(("takes", "begins"), [(4, [0, 10, 20]), (8, [0, 13, 26])])
async def test_an_interval_counts_from_begin_to_begin_but_half_of_it_stays_free(
    clock: FakeClock, takes: float, begins: list[float]
) -> None:
    found: list[float] = []

    async def run_once() -> None:
        found.append(clock.monotonic() - start)
        await clock.sleep(takes)

    start, stopping = clock.monotonic(), asyncio.Event()
    loop = asyncio.create_task(run_forever("duty", run_once, interval=10, stopping=stopping, clock=clock))
    await clock.advance(29)
    assert found == begins
    stopping.set()
    await clock.advance(takes)
    await loop


async def test_failures_back_off_up_to_the_bound_and_are_logged_once(clock: FakeClock) -> None:
    duty, stopping = Duty(), asyncio.Event()
    duty.failure = lambda: UnavailableError("AWAY", "gone")
    with structlog.testing.capture_logs() as lines:
        loop = asyncio.create_task(
            run_forever("duty", duty.run_once, interval=0, stopping=stopping, clock=clock, backoff=Backoff(1, 4))
        )
        await clock.advance(1 + 2 + 4 + 4 + 0.5)  # runs at 0, 1, 3, 7, 11
        assert duty.runs == 5
        duty.failure = None
        await clock.advance(4)
        stopping.set()
        await loop
    assert [line["event"] for line in lines] == ["loop.failed", "loop.recovered"]
    assert (lines[0]["reason"], lines[1]["failures"]) == ("AWAY", 5)


async def test_another_failure_is_logged_again(clock: FakeClock) -> None:
    duty, stopping = Duty(), asyncio.Event()
    duty.failure = lambda: UnavailableError("AWAY", "gone")
    with structlog.testing.capture_logs() as lines:
        loop = asyncio.create_task(run_forever("duty", duty.run_once, interval=1, stopping=stopping, clock=clock))
        await clock.advance(3)
        duty.failure = lambda: RuntimeError("a defect")
        await clock.advance(3)
        stopping.set()
        await loop
    assert [line["reason"] for line in lines] == ["AWAY", "RuntimeError"]
    assert lines[1]["exc_info"] is not None


async def test_a_librarys_error_that_is_known_is_a_sentence_without_a_traceback(clock: FakeClock) -> None:
    duty, stopping = Duty(), asyncio.Event()
    duty.failure = lambda: ConnectionResetError("gone")
    with structlog.testing.capture_logs() as logs:
        loop = asyncio.create_task(
            run_forever(
                "duty",
                duty.run_once,
                interval=10,
                stopping=stopping,
                clock=clock,
                translate=lambda error: UnavailableError("AWAY", "it is away") if str(error) == "gone" else None,
            )
        )
        await clock.advance(1)
        stopping.set()
        await loop
    [line] = logs
    assert (line["reason"], line["error"], line["exc_info"]) == ("AWAY", "it is away", None)


async def test_cancellation_passes_through(clock: FakeClock) -> None:
    duty = Duty()
    loop = asyncio.create_task(run_forever("duty", duty.run_once, interval=1, stopping=asyncio.Event(), clock=clock))
    await clock.advance(1)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


async def test_run_in_progress_is_finished_when_stopped(clock: FakeClock) -> None:
    finished: list[bool] = []

    async def run_once() -> None:
        await clock.sleep(5)
        finished.append(True)

    stopping = asyncio.Event()
    loop = asyncio.create_task(run_forever("duty", run_once, interval=1, stopping=stopping, clock=clock))
    await clock.advance(1)
    stopping.set()
    await clock.advance(4)
    await loop
    assert finished == [True]


async def test_heartbeat_goes_stale_when_a_run_hangs(clock: FakeClock) -> None:
    heartbeat = Heartbeat(clock, max_age_seconds=30)
    loop = asyncio.create_task(
        run_forever(
            "duty",
            asyncio.Event().wait,
            interval=1,
            stopping=asyncio.Event(),
            clock=clock,
            heartbeat=heartbeat,
        )
    )
    await clock.advance(30)
    assert heartbeat.check() is None
    await clock.advance(1)
    assert heartbeat.check() == "no sign of life for 31 s"
    loop.cancel()


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.05), (2, 0.1), (6, 1.6), (7, 2.0), (10_000, 2.0)])
def test_backoff_doubles_up_to_its_bound(failures: int, seconds: float) -> None:
    assert Backoff().wait_seconds(failures) == pytest.approx(seconds)
