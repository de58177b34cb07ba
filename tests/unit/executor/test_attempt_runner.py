"""Every attempt that was started gives its slot back and is concluded, whenever it is cut short."""

from __future__ import annotations

import pytest

from libs.common.testing.fake_clock import FakeClock, settle
from services.executor.domain.report import Result
from services.executor.usecases.acknowledger import Acknowledger
from services.executor.usecases.admission_queue import AdmissionQueue
from services.executor.usecases.answer_delivery import AnswerDelivery
from services.executor.usecases.attempt_runner import AttemptRunner
from services.executor.usecases.held_attempts import Abort, Held, HeldAttempts
from services.executor.usecases.instants import Instants
from services.executor.usecases.report_batcher import ReportBatcher
from tests.unit.executor.fake_ports import (
    T0,
    ClockAlarm,
    FakeAttemptService,
    FakeDeliveries,
    FakeTarget,
    RecordingObserver,
    due_in,
    make_grant,
)


class Bench:
    """A runner over fakes, and the slots that it gave back."""

    def __init__(self) -> None:
        self.clock = FakeClock(T0)
        self.service = FakeAttemptService()
        self.target = FakeTarget(self.clock)
        self.attempts = HeldAttempts(10)
        self.freed: list[str] = []
        observer = RecordingObserver()
        self.reports = ReportBatcher(
            self.service,
            self.attempts,
            Acknowledger(FakeDeliveries(self.clock), self.clock),
            observer,
            self.clock,
            window_seconds=0.0,
            batch_size=10,
        )
        self.runner = AttemptRunner(
            caller=self.target,
            admission=AdmissionQueue(self.clock, self.clock),
            answers=AnswerDelivery(self.service, self.clock, 1.0),
            reports=self.reports,
            observer=observer,
            instants=Instants(self.clock, lambda on_ring: ClockAlarm(self.clock, on_ring)),
            clock=self.clock,
            scheduler_clock=self.clock,
        )

    def start(self, name: str, *, due: float = 0.0, lease: float = 30.0) -> Held:
        held = Held(make_grant(name, due=due_in(due)), self.clock.monotonic() + lease, None)
        self.attempts.add(held)
        self.runner.start(held, lambda: self.freed.append(name))
        return held

    async def results(self) -> dict[str, Result]:
        if len(self.attempts):
            await self.reports.run_once()
        return {name: report.result for name, report in self.service.told.items()}


@pytest.mark.parametrize(
    ("why", "told"),
    [(Abort.CANCELLED, {"e1": Result.CANCELLED}), (Abort.DRAINED, {"e1": Result.RELEASED}), (Abort.LOST, {})],
)
async def test_what_is_cut_short_before_its_task_began_is_concluded_as_well(
    why: Abort, told: dict[str, Result]
) -> None:
    bench = Bench()
    bench.runner.abort(bench.start("e1"), why)
    await settle()
    assert (bench.freed, bench.target.started) == (["e1"], [])
    assert await bench.results() == told
    assert len(bench.attempts) == 0
