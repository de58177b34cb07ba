"""Reports travel in batches, are told until they are taken, and free their places only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from libs.common.errors import InternalError, UnavailableError
from libs.common.testing.fake_clock import FakeClock, settle
from services.executor.domain.report import Report, ReportedResponse, Result
from services.executor.usecases.acknowledger import Acknowledger
from services.executor.usecases.held_attempts import Held, HeldAttempts
from services.executor.usecases.ports import ReportVerdict
from services.executor.usecases.report_batcher import ReportBatcher
from tests.unit.executor.fake_ports import (
    T0,
    FakeAttemptService,
    FakeDeliveries,
    RecordingObserver,
    make_entry,
    make_grant,
)

RESPONSE = ReportedResponse((), "text/plain", b"x" * 900_000, "", 900_000, 900_000, truncated=False, sha256=b"")


class Bench:
    """A batcher over fakes; `conclude` hands in a report as a runner does."""

    def __init__(self) -> None:
        self.clock = FakeClock(T0)
        self.service = FakeAttemptService()
        self.deliveries = FakeDeliveries(self.clock)
        self.held = HeldAttempts(10_000)
        self.acknowledger = Acknowledger(self.deliveries, self.clock)
        self.observer = RecordingObserver()
        self.batcher = ReportBatcher(
            self.service, self.held, self.acknowledger, self.observer, self.clock, window_seconds=0.02, batch_size=10
        )

    def conclude(self, *names: str, response: ReportedResponse | None = None) -> None:
        for name in names:
            held = Held(make_grant(name), 1e9, make_entry(name))
            self.held.add(held)
            self.batcher.add(held, Report(held.lease, Result.ANSWERED, status_code=200, response=response))

    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.service.reports]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_lone_report_does_not_wait_and_the_next_one_waits_a_window(bench: Bench) -> None:
    bench.conclude("a")
    assert await bench.batcher.run_once() == 1
    bench.conclude("b")
    sending = asyncio.create_task(bench.batcher.run_once())
    await bench.clock.advance(0.019)
    assert bench.sizes() == [1]
    await bench.clock.advance(0.001)
    assert (bench.sizes(), await sending) == ([1, 1], 1)


async def test_a_report_long_after_the_last_one_does_not_wait(bench: Bench) -> None:
    bench.conclude("a")
    await bench.batcher.run_once()
    await bench.clock.advance(1)
    bench.conclude("b")
    assert await bench.batcher.run_once() == 1


async def test_a_full_batch_does_not_wait(bench: Bench) -> None:
    sending = asyncio.create_task(bench.batcher.run_once())
    await settle()
    bench.conclude(*(f"e{n}" for n in range(10)))
    await settle()
    assert (bench.sizes(), sending.done()) == ([10], True)


class SlowService(FakeAttemptService):
    """Answers reports when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.answering = asyncio.Event()

    async def report(self, reports: Sequence[Report]) -> Sequence[ReportVerdict]:
        verdicts = await super().report(reports)
        await self.answering.wait()
        return verdicts


@pytest.fixture
async def slow() -> AsyncIterator[Bench]:
    """A bench whose two loops run until the service, which the test holds up, has answered everything."""
    bench = Bench()
    bench.service = SlowService()
    bench.batcher._service = bench.service

    async def forever(run: Callable[[], Awaitable[int]]) -> None:
        while True:
            await run()

    tasks = [asyncio.ensure_future(forever(run)) for run in (bench.batcher.run_once, bench.batcher.run_beside)]
    yield bench
    for task in tasks:
        task.cancel()


async def test_one_full_batch_goes_beside_another_one(slow: Bench) -> None:
    slow.conclude(*(f"e{n}" for n in range(35)))
    await slow.clock.advance(1)
    assert slow.sizes() == [10, 10]


async def test_what_is_no_full_batch_does_not_go_beside_another_one(slow: Bench) -> None:
    slow.conclude(*(f"e{n}" for n in range(10)))
    await settle()
    slow.conclude(*(f"f{n}" for n in range(9)))
    await slow.clock.advance(1)
    assert slow.sizes() == [10]
    slow.conclude("f9")
    await settle()
    assert slow.sizes() == [10, 10]


async def test_batches_beside_each_other_tell_each_report_once(slow: Bench) -> None:
    names = [f"e{n}" for n in range(95)]
    slow.conclude(*names)
    await settle()
    assert isinstance(slow.service, SlowService)
    slow.service.answering.set()
    for _ in range(10):
        await slow.clock.advance(0.02)
    told = [report.lease.execution_id for batch in slow.service.reports for report in batch]
    assert (sorted(told), len(slow.held)) == (sorted(names), 0)


async def test_while_a_refused_batch_is_cut_nothing_goes_beside(bench: Bench) -> None:
    bench.service.report_error = lambda reports: InternalError("INTERNAL", "no") if len(reports) > 1 else None
    bench.conclude(*(f"e{n}" for n in range(20)))
    assert await bench.batcher.run_once() == 0
    bench.service.report_error = lambda _: None
    bench.batcher._under_way = True
    beside = asyncio.create_task(bench.batcher.run_beside())
    await bench.clock.advance(10)
    assert (await beside, bench.sizes()) == (0, [])


async def test_under_load_batches_stay_batches(bench: Bench) -> None:
    async def forever() -> None:
        while True:
            await bench.batcher.run_once()

    task = asyncio.create_task(forever())
    for n in range(100):
        bench.conclude(f"e{n}")
        await bench.clock.advance(0.005)
    await bench.clock.advance(0.1)
    task.cancel()
    assert sum(bench.sizes()) == 100
    assert len(bench.sizes()) <= 26


async def test_places_are_freed_and_entries_acknowledged_when_the_report_was_taken(bench: Bench) -> None:
    bench.conclude(*(f"e{n}" for n in range(10)))
    assert len(bench.held) == 10
    await bench.batcher.run_once()
    assert len(bench.held) == 0
    await bench.acknowledger.run_once()
    assert [entry.execution_id for entry in bench.deliveries.acknowledged] == [f"e{n}" for n in range(10)]


async def test_while_the_scheduler_is_away_nothing_is_lost_or_let_go(bench: Bench) -> None:
    bench.conclude(*(f"e{n}" for n in range(10)))
    bench.service.available = False
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await bench.batcher.run_once()
    assert len(bench.held) == 10
    bench.service.available = True
    await bench.batcher.run_once()
    assert [report.lease.execution_id for report in bench.service.reports[0]] == [f"e{n}" for n in range(10)]


async def test_a_stale_report_is_over_as_well(bench: Bench) -> None:
    bench.service.stale = {"e3"}
    bench.conclude(*(f"e{n}" for n in range(10)))
    await bench.batcher.run_once()
    assert (len(bench.held), bench.observer.refused) == (0, 1)


async def test_large_answers_make_smaller_batches(bench: Bench) -> None:
    bench.conclude(*(f"e{n}" for n in range(10)), response=RESPONSE)
    while len(bench.held):
        sending = asyncio.create_task(bench.batcher.run_once())
        await bench.clock.advance(0.02)
        await sending
    assert bench.sizes() == [3, 3, 3, 1]


async def test_one_bad_report_holds_up_no_other_and_loses_its_answer_first(bench: Bench) -> None:
    def refuse_bad(reports: Sequence[Report]) -> Exception | None:
        bad = any(report.lease.execution_id == "bad" and report.response is not None for report in reports)
        return InternalError("INTERNAL", "cannot be stored") if bad else None

    bench.service.report_error = refuse_bad
    bench.conclude("e0", "e1", "bad", "e2", response=RESPONSE)
    await drive(bench)
    assert set(bench.service.told) == {"e0", "e1", "bad", "e2"}
    assert bench.service.told["bad"].response is None
    assert bench.service.told["e2"].response is not None


async def test_a_report_that_cannot_be_written_takes_no_other_with_it(bench: Bench) -> None:
    def cannot_write(reports: Sequence[Report]) -> Exception | None:
        bad = any(report.lease.execution_id == "bad" and report.response is not None for report in reports)
        return UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed") if bad else None

    bench.service.report_error = cannot_write
    bench.conclude("e0", "e1", "bad", "e2", response=RESPONSE)
    await drive(bench)
    assert set(bench.service.told) == {"e0", "e1", "bad", "e2"}


async def test_a_report_that_is_never_taken_is_let_go_in_the_end(bench: Bench) -> None:
    def refuse_bad(reports: Sequence[Report]) -> Exception | None:
        bad = any(report.lease.execution_id == "bad" for report in reports)
        return InternalError("INTERNAL", "cannot be stored") if bad else None

    bench.service.report_error = refuse_bad
    bench.conclude("bad", "e0", "e1")
    await drive(bench)
    assert set(bench.service.told) == {"e0", "e1"}


async def drive(bench: Bench) -> None:
    """Run the batcher until nothing is held."""
    for _ in range(50):
        if not len(bench.held):
            return
        sending = asyncio.create_task(bench.batcher.run_once())
        await bench.clock.advance(0.02)
        await sending
    raise AssertionError("the batcher does not come to an end")
