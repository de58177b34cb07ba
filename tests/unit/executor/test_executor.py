"""The executor as a whole over fakes: deliveries in, POSTs on the dot, reports out, whatever goes wrong between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from libs.common.errors import UnimplementedError
from libs.common.rpc.health import LIVENESS, READINESS, HealthReporter
from libs.common.testing.fake_clock import FakeClock, settle
from services.executor.domain.answer import Answer
from services.executor.domain.attempt import Refusal
from services.executor.domain.delivery_mode import Mode
from services.executor.domain.gate_values import SECOND, DeferReason, Deferred, Feedback
from services.executor.domain.report import CallResult, Result
from services.executor.settings import ExecutorSettings
from services.executor.usecases.ports import ExtensionVerdict, PollMode
from services.executor.wiring import Ports, wire
from tests.unit.executor.fake_ports import (
    T0,
    ClockAlarm,
    FakeAttemptService,
    FakeDeliveries,
    FakeGates,
    FakeTarget,
    RecordingObserver,
    due_in,
    make_entry,
    make_grant,
)


class Bench:
    """A running executor, all of whose world is fake."""

    def __init__(self, settings: ExecutorSettings) -> None:
        self.clock = FakeClock(T0)
        self.service = FakeAttemptService()
        self.deliveries = FakeDeliveries(self.clock)
        self.target = FakeTarget(self.clock)
        self.gates = FakeGates()
        self.observer = RecordingObserver()
        self.health = HealthReporter()
        self.stopping = asyncio.Event()
        self._executor = wire(
            Ports(
                self.service,
                self.deliveries,
                self.target,
                self.gates,
                self.observer,
                lambda on_ring: ClockAlarm(self.clock, on_ring),
                self.clock,
                self.clock,
            ),
            "executor-1",
            settings,
            self.health,
            self.stopping,
        )
        self.task = asyncio.create_task(self._executor.run(self.stopping))

    def deliver(self, name: str, due: float = 0.0) -> None:
        self.service.give(make_grant(name, due=due_in(due)))
        self.deliveries.waiting.append(make_entry(name, due=due_in(due)))

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    def results(self) -> dict[str, Result]:
        return {name: report.result for name, report in self.service.told.items()}

    def acknowledged(self) -> set[str]:
        return {entry.execution_id for entry in self.deliveries.acknowledged}


Start = Callable[..., Bench]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    benches: list[Bench] = []

    def make(**changes: object) -> Bench:
        defaults = {"poll_interval_seconds": 2.0, "drain_seconds": 20.0, "report_window_seconds": 0.02}
        bench = Bench(ExecutorSettings.model_validate({**defaults, **changes}))
        benches.append(bench)
        return bench

    yield make
    for bench in benches:
        bench.task.cancel()
        await asyncio.wait({bench.task})


async def test_a_delivered_execution_is_posted_on_the_dot_reported_and_acknowledged(start: Start) -> None:
    bench = start()
    await settle()
    bench.deliver("e1", due=1.25)
    await bench.pass_time(1.249)
    assert bench.target.started == []
    await bench.pass_time(0.1)
    assert bench.target.started == [("e1", due_in(1.25))]
    assert bench.observer.lags == [0.0]
    report = bench.service.told["e1"]
    assert (report.result, report.status_code, report.start_time) == (Result.ANSWERED, 200, due_in(1.25))
    assert bench.acknowledged() == {"e1"}


async def test_what_fails_while_it_gets_ready_is_told_at_its_instant(start: Start) -> None:
    bench = start()
    bench.target.connects, bench.target.answer = False, CallResult(Result.NOT_SENT, error_reason="CONNECT_FAILED")
    await settle()
    bench.deliver("e1", due=1.25)
    await bench.pass_time(1.249)
    assert bench.service.told == {}
    await bench.pass_time(0.1)
    report = bench.service.told["e1"]
    assert (report.result, report.start_time, report.end_time) == (Result.NOT_SENT, due_in(1.25), due_in(1.25))


async def test_what_is_late_on_the_stream_is_not_polled_for_as_well(start: Start) -> None:
    bench = start()
    await bench.pass_time(1)
    before = len(bench.service.polls)
    for n in range(10):
        bench.deliver(f"e{n}", due=-2 - n)
        await bench.pass_time(0.8)
    assert len(bench.service.polls) - before <= 2
    await bench.pass_time(10)
    assert len(bench.service.polls) - before >= 5, "polls stay rare when the streams are on time again"


async def test_entries_that_come_one_by_one_are_begun_together(start: Start) -> None:
    bench = start()
    await bench.pass_time(0.5)
    bench.deliver("e1", due=2)
    await bench.pass_time(0.51)
    for n in range(2, 6):
        bench.deliver(f"e{n}", due=2)
        await bench.pass_time(0.005)
    await bench.pass_time(0.1)
    assert [len(ids) for _, ids in bench.service.begins] == [5]


async def test_refused_entries_are_acknowledged_and_forgotten(start: Start) -> None:
    bench = start()
    bench.deliveries.waiting += [make_entry("gone"), make_entry("gone", entry_id="copy")]
    await bench.pass_time(0.1)
    assert len(bench.deliveries.acknowledged) == 2
    assert bench.service.begins[0][1] == ("gone",)
    assert bench.target.started == []


async def test_a_refusal_with_a_time_is_asked_again_then(start: Start) -> None:
    bench = start()
    bench.deliveries.waiting.append(make_entry("later"))
    bench.service.refusals["later"] = Refusal("later", "OVERLAP_UNDECIDED", due_in(1.0))
    await bench.pass_time(0.1)
    assert bench.acknowledged() == {"later"}
    bench.service.give(make_grant("later"))
    bench.service.more = False
    await bench.pass_time(0.8)
    assert len(bench.service.begins) == 1
    await bench.pass_time(0.6)
    assert bench.results() == {"later": Result.ANSWERED}


async def test_while_the_scheduler_is_away_the_same_question_is_put_again(start: Start) -> None:
    bench = start()
    await settle()
    bench.service.available = False
    bench.deliver("e1")
    await bench.pass_time(3)
    assert len({request_id for request_id, _ in bench.service.begins}) == 1
    assert len(bench.service.begins) > 2
    assert bench.acknowledged() == set()
    bench.service.available = True
    await bench.pass_time(3)
    assert bench.results() == {"e1": Result.ANSWERED}
    assert len({request_id for request_id, _ in bench.service.begins}) == 1


async def test_no_more_is_read_than_there_is_room_for(start: Start) -> None:
    bench = start(executor_concurrency=3, executor_prefetch=2)
    bench.target.holds = True
    for n in range(20):
        bench.deliver(f"e{n}")
    await bench.pass_time(1)
    assert len(bench.target.started) == 3
    assert len(bench.deliveries.waiting) == 15
    bench.target.gate.set()
    await bench.pass_time(5)
    assert len(bench.service.told) == 20


async def test_overdue_work_is_polled_now_and_then_while_redis_is_well(start: Start) -> None:
    bench = start(poll_interval_seconds=2.0)
    await bench.pass_time(10)
    assert 4 <= len(bench.service.polls) <= 7
    assert {mode for _, _, mode in bench.service.polls} == {PollMode.OVERDUE}
    bench.service.give(make_grant("lost"))
    await bench.pass_time(3)
    assert bench.results() == {"lost": Result.ANSWERED}


async def test_without_redis_everything_is_polled_within_two_seconds(start: Start) -> None:
    bench = start()
    await bench.pass_time(3)
    bench.deliveries.available = False
    await bench.pass_time(2)
    assert bench.observer.modes == [Mode.POLLING]
    bench.service.polls.clear()
    await bench.pass_time(1)
    assert len(bench.service.polls) >= 5
    assert {mode for _, _, mode in bench.service.polls} == {PollMode.ALL}
    bench.deliveries.available = True
    await bench.pass_time(3)
    assert bench.observer.modes == [Mode.POLLING, Mode.RECOVERING]
    await bench.pass_time(6)
    assert bench.observer.modes == [Mode.POLLING, Mode.RECOVERING, Mode.STREAMS]


async def test_a_poll_that_says_more_is_followed_at_once(start: Start) -> None:
    bench = start()
    bench.service.more = True
    await bench.pass_time(0.01)
    assert len(bench.service.polls) > 2
    bench.service.more = False


@pytest.mark.parametrize("redis", [True, False])
async def test_a_scheduler_that_is_away_is_logged_once(start: Start, redis: bool) -> None:
    bench = start()
    bench.deliveries.available = redis
    await bench.pass_time(5)
    with capture_logs() as logs:
        bench.service.available = False
        await bench.pass_time(60)
        assert [line["event"] for line in logs if line.get("loop") == "poll"] == ["loop.failed"]
        bench.service.available = True
        await bench.pass_time(5)
    assert [line["event"] for line in logs if line.get("loop") == "poll"] == ["loop.failed", "loop.recovered"]


async def test_long_attempts_keep_their_leases(start: Start) -> None:
    bench = start()
    bench.target.holds = True
    bench.deliver("long")
    await bench.pass_time(60)
    assert 4 <= len(bench.service.extended) <= 8
    bench.target.gate.set()
    await bench.pass_time(1)
    assert bench.results() == {"long": Result.ANSWERED}


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [(ExtensionVerdict.LOST, {}), (ExtensionVerdict.CANCEL, {"e1": Result.CANCELLED})],
)
@pytest.mark.parametrize("due", [0.0, 100.0], ids=["running", "waiting"])
async def test_a_lost_lease_ends_in_silence_and_a_cancelled_one_in_a_report(
    start: Start, verdict: ExtensionVerdict, expected: dict[str, Result], due: float
) -> None:
    bench = start()
    bench.target.holds = True
    bench.service.extension = lambda _: verdict
    bench.deliver("e1", due)
    await bench.pass_time(15)
    assert bench.results() == expected
    assert bench.acknowledged() == {"e1"}
    await bench.pass_time(100)
    assert len(bench.target.started) == (1 if due == 0.0 else 0)


@pytest.mark.parametrize(("due", "connecting"), [(100, 0), (0, 100)], ids=["waiting", "connecting"])
async def test_an_attempt_whose_lease_ran_out_before_its_post_is_handed_back_unsent(
    start: Start, due: float, connecting: float
) -> None:
    bench = start()
    bench.target.connecting_seconds = connecting
    bench.deliver("e1", due)
    await bench.pass_time(1)
    bench.service.available = False
    await bench.pass_time(120)
    assert bench.target.started == []
    bench.service.available = True
    await bench.pass_time(5)
    assert (bench.results(), bench.acknowledged()) == ({"e1": Result.RELEASED}, {"e1"})


async def test_an_attempt_that_was_frozen_over_its_instant_and_its_lease_is_handed_back_unsent(start: Start) -> None:
    bench = start()
    bench.deliver("e1", due=1.25)
    await bench.pass_time(1.2)
    # Its connection stands, and the process stands still.
    bench.clock._move_to(bench.clock.monotonic() + 40)
    await bench.pass_time(0.1)
    assert bench.target.started == []
    assert bench.observer.lags == []
    assert bench.results() == {"e1": Result.RELEASED}


async def test_a_deferred_attempt_goes_back_unsent(start: Start) -> None:
    bench = start()
    bench.gates.verdict = lambda ask: Deferred(ask.now + 30 * SECOND, DeferReason.JOB_RATE_LIMIT)
    bench.deliver("e1")
    await bench.pass_time(1)
    report = bench.service.told["e1"]
    assert (report.result, report.defer_time, report.defer_reason) == (Result.DEFERRED, due_in(30), "JOB_RATE_LIMIT")
    assert (bench.target.started, bench.gates.noted) == ([], [])


async def test_an_admitted_attempt_is_noted_once_even_when_it_is_aborted(start: Start) -> None:
    bench = start()
    bench.target.holds = True
    bench.service.extension = lambda _: ExtensionVerdict.CANCEL
    bench.deliver("e1")
    await bench.pass_time(15)
    [note] = bench.gates.noted
    assert (note.execution_id, note.started, note.feedback) == ("e1", True, Feedback())


@pytest.mark.parametrize(("sends", "result"), [(True, Result.NO_ANSWER), (False, Result.NOT_SENT)])
async def test_a_bug_of_ours_becomes_an_outcome(start: Start, sends: bool, result: Result) -> None:
    bench = start()
    bench.target.sends, bench.target.error = sends, RuntimeError("bug")
    bench.deliver("e1")
    await bench.pass_time(1)
    assert bench.results() == {"e1": result}
    assert bench.service.told["e1"].error_reason == "EXECUTOR_FAILED"


class Bytes:
    """A large answer's bytes."""

    def __init__(self) -> None:
        self.closed = False

    def chunks(self) -> Iterator[bytes]:
        return iter([b"large ", b"answer"])

    def close(self) -> None:
        self.closed = True


def large_answer(source: Bytes) -> CallResult:
    answer = Answer((), "text/plain", b"", source, b"large", "", 12, 12, truncated=False, sha256=b"")
    return CallResult(Result.ANSWERED, 200, answer=answer)


async def test_a_large_answer_is_uploaded_before_its_report(start: Start) -> None:
    bench, source = start(), Bytes()
    bench.target.answer = large_answer(source)
    bench.deliver("e1")
    await bench.pass_time(1)
    response = bench.service.told["e1"].response
    assert response is not None
    assert (response.blob_id, response.head, response.truncated) == ("blob-e1", b"large", False)
    assert bench.service.uploads == [(make_grant("e1").lease, "", b"large answer")]
    assert source.closed


async def test_an_upload_that_cannot_be_made_costs_the_answer_and_not_the_outcome(start: Start) -> None:
    bench, source = start(), Bytes()
    bench.target.answer = large_answer(source)
    bench.service.upload_error = UnimplementedError("UNIMPLEMENTED", "not yet")
    bench.deliver("e1")
    await bench.pass_time(1)
    report = bench.service.told["e1"]
    assert report.response is not None
    assert (report.result, report.response.body, report.response.truncated) == (Result.ANSWERED, b"large", True)
    assert report.response.warning
    assert source.closed


async def test_draining_hands_back_what_is_not_due_and_finishes_what_runs(start: Start) -> None:
    bench = start()
    await settle()
    bench.target.holds = True
    bench.deliver("running", due=0.5)
    bench.deliver("soon", due=1.3)
    bench.deliver("later", due=30)
    await bench.pass_time(1)
    bench.stopping.set()
    await bench.pass_time(0.1)
    assert bench.results() == {"later": Result.RELEASED}
    assert "draining" in bench.health.reasons[READINESS]
    await bench.pass_time(2)
    bench.target.gate.set()
    await bench.pass_time(1)
    assert bench.task.done()
    assert bench.results() == {"later": Result.RELEASED, "running": Result.ANSWERED, "soon": Result.ANSWERED}


async def test_a_stopping_executor_tells_gates_of_its_last_ends(start: Start) -> None:
    """Untold, a place is taken for as long as its lease holds, and nobody else hears of a target's 429."""
    bench = start()
    await settle()
    bench.target.holds = True
    bench.deliver("running", due=0.5)
    await bench.pass_time(1)
    bench.stopping.set()
    await bench.pass_time(1)
    bench.target.gate.set()
    await bench.pass_time(2)
    assert bench.task.done()
    assert bench.results() == {"running": Result.ANSWERED}
    assert [note.execution_id for note in bench.gates.noted] == ["running"]


async def test_what_still_runs_at_the_deadline_is_reported_as_unanswered(start: Start) -> None:
    bench = start(drain_seconds=20)
    bench.target.holds = True
    bench.deliver("stuck")
    await bench.pass_time(1)
    bench.stopping.set()
    await bench.pass_time(14)
    assert not bench.task.done()
    await bench.pass_time(3)
    assert bench.task.done()
    assert bench.results() == {"stuck": Result.NO_ANSWER}
    assert bench.service.told["stuck"].error_reason == "EXECUTOR_STOPPED"


@pytest.mark.parametrize("slow", ["poll", "reap"])
async def test_an_intake_that_ends_slowly_takes_nothing_from_the_last_reports(
    start: Start, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """The process is cut at its deadline, however late its own drain could begin."""
    bench = start(drain_seconds=20, reap_interval_seconds=2)
    bench.target.holds = True
    bench.deliver("stuck")
    await bench.pass_time(1)
    port = bench.service if slow == "poll" else bench.deliveries
    call, seconds = getattr(port, slow), {"poll": 5.0, "reap": 60.0}[slow]

    async def slow_call(*args: object, **options: object) -> object:
        await bench.clock.sleep(seconds)
        return await call(*args, **options)

    monkeypatch.setattr(port, slow, slow_call)
    await bench.pass_time(1.5)
    bench.stopping.set()
    await bench.pass_time(19)
    assert bench.results() == {"stuck": Result.NO_ANSWER}
    assert bench.task.done()


async def test_a_scheduler_that_is_away_does_not_keep_a_stopping_executor(start: Start) -> None:
    bench = start(drain_seconds=20)
    bench.deliver("e1")
    await bench.pass_time(0.001)
    bench.service.available = False
    bench.stopping.set()
    await bench.pass_time(25)
    assert bench.task.done()


async def test_readiness_follows_fetches_and_liveness_the_loops(start: Start) -> None:
    bench = start()
    await bench.pass_time(2)
    await bench.health.evaluate()
    assert bench.health.reasons[READINESS] == ()
    bench.deliveries.available = bench.service.available = False
    await bench.pass_time(11)
    await bench.health.evaluate()
    assert "last fetch" in bench.health.reasons[READINESS][0]
    assert bench.health.reasons[LIVENESS] == ()


async def test_dead_consumers_are_reaped_now_and_then(start: Start) -> None:
    bench = start(reap_interval_seconds=10)
    await bench.pass_time(35)
    assert bench.deliveries.reaped == 4


async def test_a_clock_correction_moves_the_fire(start: Start) -> None:
    bench = start()
    bench.deliver("e1", due=3)
    await bench.pass_time(1)
    bench.clock.step_wall(timedelta(seconds=1))
    await bench.pass_time(1.5)
    assert bench.target.started[0][1] >= due_in(3)
