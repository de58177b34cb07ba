"""How attempts are let through: asked for in batches, noted once, held back for a place, limits shared or apart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from libs.common.errors import UnavailableError
from libs.common.testing.fake_clock import FakeClock, settle
from services.executor.domain.attempt import AttemptLimits
from services.executor.domain.gate_values import (
    SECOND,
    Admitted,
    Ask,
    Busy,
    CircuitState,
    DeferReason,
    Deferred,
    Feedback,
    GateRules,
    GateSummary,
    Note,
    TargetKey,
    Verdict,
    to_micros,
)
from services.executor.domain.report import CallResult, Result
from services.executor.usecases.admission_queue import (
    MAX_ASKS,
    NOTES_WINDOW_SECONDS,
    RECHECK_SECONDS,
    AdmissionQueue,
    target_of,
)
from services.executor.usecases.held_attempts import Abort, Held
from services.executor.usecases.host_watch import TOLD_AGAIN_SECONDS, HostWatch
from services.executor.usecases.ports import GateAnswers
from services.executor.usecases.shared_limits import RETURN_SECONDS, SharedLimits
from tests.unit.executor.fake_ports import (
    T0,
    FakeAttemptService,
    FakeGates,
    RecordingObserver,
    due_in,
    make_grant,
)

TARGET = TargetKey("org", "target.example:443", 1)
NOW = to_micros(T0)
ANSWERED = CallResult(Result.ANSWERED, 200)


def held(
    name: str = "e1",
    *,
    url: str = "https://target.example/",
    limits: AttemptLimits | None = None,
    due: float = 0,
) -> Held:
    grant = make_grant(name, due=due_in(due))
    return Held(replace(grant, request=replace(grant.request, url=url), limits=limits or grant.limits), 1e9, None)


def an_ask(name: str = "e1", *, now: int = NOW, **limits: int) -> Ask:
    plain = Ask(name, 1, "job", now, now, job_limit=0, host_limit=0, concurrent_limit=0, lease_until=now + 15 * SECOND)
    return replace(plain, **limits)


def a_note(name: str = "e1", feedback: Feedback | None = None) -> Note:
    return Note(name, 1, "job", NOW, started=True, feedback=feedback or Feedback())


# The queue


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(T0)


@pytest.fixture
def queue(clock: FakeClock) -> AdmissionQueue:
    return AdmissionQueue(clock, clock)


def let_through(queue: AdmissionQueue, name: str = "e1") -> Held:
    each = held(name)
    queue.ask(each)
    each.let_through(Admitted(NOW, NOW + SECOND))
    return each


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Target.Example/v1", "target.example:443"),
        ("http://10.0.0.1:8080", "10.0.0.1:8080"),
        ("ftp://target.example", None),
        ("no address", None),
    ],
)
def test_a_gate_is_named_by_org_host_and_resets(url: str, host: str | None) -> None:
    assert target_of(held(url=url).grant) == (TargetKey("org", host, 1) if host else None)


async def test_what_gathers_goes_together_and_no_more_than_fits(queue: AdmissionQueue) -> None:
    for number in range(MAX_ASKS + 3):
        queue.ask(held(f"e{number}"))
    assert len((await queue.gather()).asks) == MAX_ASKS
    assert len((await queue.gather()).asks) == 3


async def test_what_is_early_asks_shortly_before_it_is_due_and_together_with_others(
    queue: AdmissionQueue, clock: FakeClock
) -> None:
    for name, due in (("late", 0.7), ("first", 0.5), ("close", 0.53)):
        queue.ask(held(name, due=due))
    gathering = asyncio.create_task(queue.gather())
    await clock.advance(0.43)
    assert not gathering.done()
    await clock.advance(0.02)
    assert [each.lease.execution_id for each in (await gathering).asks] == ["first", "close"]
    # One that comes later and is due earlier ends the wait for the others.
    gathering = asyncio.create_task(queue.gather())
    await clock.advance(0.01)
    queue.ask(held("earlier", due=0.55))
    await clock.advance(0.04)
    assert not (await gathering).asks
    gathering = asyncio.create_task(queue.gather())
    await clock.advance(0.001)
    assert [each.lease.execution_id for each in (await gathering).asks] == ["earlier"]


async def test_notes_wait_a_little_for_company_unless_somebody_waits_for_the_place(
    queue: AdmissionQueue, clock: FakeClock
) -> None:
    first, second = let_through(queue, "e1"), let_through(queue, "e2")
    await queue.gather()
    queue.note(first, ANSWERED)
    gathering = asyncio.create_task(queue.gather())
    await clock.advance(NOTES_WINDOW_SECONDS - 0.01)
    queue.note(second, ANSWERED)
    await clock.advance(0.01)
    assert len((await gathering).notes) == 2
    third = let_through(queue, "e3")
    await queue.gather()
    queue.hold_back(held("e4"), TARGET)
    queue.note(third, ANSWERED)
    gathered = await queue.gather()
    assert (len(gathered.notes), len(gathered.asks)) == (1, 1)


async def test_a_note_goes_with_who_asks_soon_and_wakes_nobody_for_itself(
    queue: AdmissionQueue, clock: FakeClock
) -> None:
    ended = let_through(queue, "e1")
    await queue.gather()
    queue.ask(held("e2", due=0.1))
    gathering = asyncio.create_task(queue.gather())
    await clock.advance(0.001)
    queue.note(ended, ANSWERED)
    await clock.advance(0.03)
    assert not gathering.done()
    await clock.advance(0.01)
    gathered = await gathering
    assert (len(gathered.notes), [each.lease.execution_id for each in gathered.asks]) == (1, ["e2"])


async def test_what_was_aborted_meanwhile_is_not_asked_for(queue: AdmissionQueue) -> None:
    first, second = held("e1"), held("e2")
    queue.ask(first)
    queue.ask(second)
    first.abort = Abort.CANCELLED
    assert (await queue.gather()).asks == [second]


async def test_an_end_is_noted_once_and_only_of_what_was_let_through(queue: AdmissionQueue) -> None:
    never, admitted = held("e1"), let_through(queue, "e2")
    admitted.progress.start_time = T0
    queue.note(never, ANSWERED)
    queue.note(admitted, ANSWERED)
    queue.note(admitted, None)
    ((target, note),) = (await queue.gather()).notes
    assert (target, note.execution_id, note.started, note.feedback.succeeded) == (TARGET, "e2", True, True)


async def test_an_attempt_that_did_not_start_gives_its_slot_back_and_asks_again(queue: AdmissionQueue) -> None:
    admitted = let_through(queue)
    await queue.gather()
    queue.ask_again(admitted)
    gathered = await queue.gather()
    assert ([note.started for _, note in gathered.notes], gathered.asks) == ([False], [admitted])


def test_a_slot_covers_a_start_until_its_end(queue: AdmissionQueue, clock: FakeClock) -> None:
    admitted = let_through(queue)
    clock.step_wall(timedelta(seconds=1))
    assert not admitted.is_overdue(clock.now())
    clock.step_wall(timedelta(microseconds=1))
    assert admitted.is_overdue(clock.now())


async def test_a_freed_place_wakes_the_one_that_waits_longest(queue: AdmissionQueue) -> None:
    running = let_through(queue, "e0")
    first, second = held("e1"), held("e2")
    queue.ask(first)
    queue.ask(second)
    await queue.gather()
    queue.hold_back(first, TARGET)
    queue.hold_back(second, TARGET)
    queue.note(running, ANSWERED)
    assert (await queue.gather()).asks == [first]


async def test_what_is_held_back_asks_again_after_a_while_for_others_free_places_too(
    queue: AdmissionQueue, clock: FakeClock
) -> None:
    waiting = held("e1")
    queue.ask(waiting)
    await queue.gather()
    queue.hold_back(waiting, TARGET)
    gathering = asyncio.create_task(queue.gather())
    await clock.advance(RECHECK_SECONDS)
    assert (await gathering).asks == [waiting]


async def test_what_would_wait_long_for_a_place_stands_in_line_instead(queue: AdmissionQueue, clock: FakeClock) -> None:
    one_place = AttemptLimits(60, 60, 1, 1)
    slow = held("e0", limits=one_place)
    queue.ask(slow)
    slow.let_through(Admitted(NOW, NOW))
    slow.progress.start_time = T0
    await clock.advance(5)
    queue.note(slow, ANSWERED)
    first, second = held("e1", limits=one_place), held("e2", limits=one_place)
    assert queue.turn_micros(first, TARGET) == 0
    queue.hold_back(first, TARGET)
    assert queue.turn_micros(second, TARGET) == 5 * SECOND
    # And what has waited here for long goes as well.
    await clock.advance(3)
    assert queue.turn_micros(first, TARGET) == 5 * SECOND


async def test_those_that_ask_together_are_ahead_of_each_other(queue: AdmissionQueue, clock: FakeClock) -> None:
    """Else a burst at a slow host waits here as a whole, and asks ten times a second."""
    limits = AttemptLimits(0, 0, 1, 1)
    first = let_through(queue)
    await queue.gather()
    first.progress.start_time = T0
    await clock.advance(0.4)
    queue.note(first, ANSWERED)
    for number in range(2, 12):
        queue.ask(held(f"e{number}", limits=limits))
    for _ in range(2):
        gathered = await queue.gather()
        turns = [queue.turn_micros(each, TARGET) for each in gathered.asks]
        assert turns == [0] * 3 + [400_000] * 7
        for each in gathered.asks:
            queue.hold_back(each, TARGET)
        await clock.advance(RECHECK_SECONDS)


async def test_what_could_not_be_exchanged_comes_first_the_next_time(queue: AdmissionQueue) -> None:
    admitted, asking = let_through(queue, "e0"), held("e1")
    queue.note(admitted, ANSWERED)
    gathered = await queue.gather()
    queue.ask(asking)
    queue.put_back(gathered)
    again = await queue.gather()
    assert (again.notes, again.asks) == (gathered.notes, [*gathered.asks, asking])


# Shared, or apart


class Limits:
    """Shared limits over fake gates."""

    def __init__(self, clock: FakeClock, executors: int = 2) -> None:
        self.clock = clock
        self.gates = FakeGates(executors=executors)
        self.observer = RecordingObserver()
        self.watch = HostWatch(FakeAttemptService(), self.observer, clock, clock)
        self.limits = SharedLimits(
            self.gates,
            GateRules(10 * SECOND),
            self.watch,
            self.observer,
            clock=clock,
            scheduler_clock=clock,
            executor_id="x1",
            assumed_executors=4,
        )

    async def ask(self, *names: str, **limits: int) -> list[Verdict]:
        now = to_micros(self.clock.now())
        asks = [(TARGET, an_ask(name, now=now, **limits)) for name in names]
        return list(await self.limits.exchange([], asks))

    async def away(self) -> None:
        self.gates.available = False
        with pytest.raises(UnavailableError):
            await self.limits.run_once()


@pytest.fixture
def shared(clock: FakeClock) -> Limits:
    return Limits(clock)


async def test_a_failing_exchange_is_answered_apart_at_once(shared: Limits) -> None:
    shared.gates.available = False
    assert await shared.ask("e1") == [Admitted(NOW, 2**53 - 1)]
    assert (shared.limits.shared, shared.observer.shared) == (False, [False])


async def test_apart_a_limited_host_waits_for_one_window_and_then_gets_a_share(shared: Limits) -> None:
    await shared.limits.run_once()
    await shared.away()
    waits = await shared.ask("e1", host_limit=10)
    assert waits == [Deferred(NOW + 5 * SECOND, DeferReason.TARGET_RATE_LIMIT)]
    await shared.clock.advance(10.5)
    verdicts = await shared.ask(*(f"e{n}" for n in range(10)), host_limit=10)
    # Two executors: half of the limit each.
    assert [type(verdict) for verdict in verdicts] == [Admitted] * 5 + [Deferred] * 5


async def test_before_redis_told_how_many_there_are_a_number_is_assumed(shared: Limits) -> None:
    shared.gates.available = False
    verdicts = await shared.ask(*(f"e{n}" for n in range(8)), concurrent_limit=8)
    assert [type(verdict) for verdict in verdicts] == [Admitted] * 2 + [Busy] * 6


async def test_a_share_of_less_than_one_waits_for_redis_but_a_jobs_own_limit_goes_on(shared: Limits) -> None:
    shared.gates.available = False
    (places,) = await shared.ask("e1", concurrent_limit=3)
    assert places == Deferred(NOW + 5 * SECOND, DeferReason.TARGET_CONCURRENCY)
    assert isinstance((await shared.ask("e2", job_limit=1))[0], Admitted)


async def test_places_that_were_taken_before_count_apart_as_well(shared: Limits) -> None:
    await shared.ask("e1", "e2", concurrent_limit=8)
    shared.gates.available = False
    assert await shared.ask("e3", concurrent_limit=8) == [Busy()]
    await shared.limits.exchange([(TARGET, a_note("e1"))], [])
    assert isinstance((await shared.ask("e3", concurrent_limit=8))[0], Admitted)


async def test_places_are_renewed_until_their_attempts_end(shared: Limits) -> None:
    await shared.ask("e1", "e2")
    await shared.limits.run_once()
    await shared.limits.exchange([(TARGET, a_note("e1"))], [])
    await shared.limits.run_once()
    await shared.limits.exchange([(TARGET, a_note("e2"))], [])
    await shared.limits.run_once()
    assert shared.gates.renewed == [{TARGET: ["e1#1", "e2#1"]}, {TARGET: ["e2#1"]}]


async def test_a_place_that_is_being_given_back_is_not_renewed_meanwhile(shared: Limits) -> None:
    """Renewed behind the note that gave it back, it would be taken for nobody until its lease ran out."""
    await shared.ask("e1")
    answered = asyncio.Event()
    exchange = shared.gates.exchange

    async def slow_exchange(
        notes: Sequence[tuple[TargetKey, Note]], asks: Sequence[tuple[TargetKey, Ask]]
    ) -> GateAnswers:
        answers = await exchange(notes, asks)
        await answered.wait()
        return answers

    shared.gates.exchange = slow_exchange  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        group.create_task(shared.limits.exchange([(TARGET, a_note("e1"))], []))
        await settle()
        group.create_task(shared.limits.run_once())
        await settle()
        answered.set()
    assert shared.gates.renewed == []


async def test_limits_are_shared_again_some_time_after_redis_came_back(shared: Limits) -> None:
    await shared.away()
    await shared.ask("e1", job_limit=5)
    shared.gates.available = True
    await shared.limits.run_once()
    assert not shared.limits.shared
    await shared.clock.advance(RETURN_SECONDS)
    await shared.limits.run_once()
    assert shared.limits.shared
    assert shared.observer.shared == [False, True]
    # Redis was told what started meanwhile.
    assert shared.gates.restored[0] == {TARGET: {"job": [("e1#1", NOW)]}}


async def test_a_redis_that_fails_again_begins_the_return_anew(shared: Limits) -> None:
    await shared.away()
    shared.gates.available = True
    await shared.limits.run_once()
    await shared.clock.advance(RETURN_SECONDS - 1)
    await shared.away()
    shared.gates.available = True
    await shared.clock.advance(2)
    await shared.limits.run_once()
    assert not shared.limits.shared


async def test_a_redis_that_forgot_is_told_what_still_counts(shared: Limits) -> None:
    await shared.ask("old", host_limit=5)
    await shared.clock.advance(60)
    await shared.ask("new", host_limit=5, job_limit=5)
    await shared.ask("free")
    shared.gates.known = False
    await shared.limits.run_once()
    later = NOW + 60 * SECOND
    assert shared.gates.restored == [{TARGET: {"job": [("new#1", later)], "": [("new#1", later)]}}]


async def test_a_redis_that_failed_is_told_of_starts_from_before_too(shared: Limits) -> None:
    """A replica that took over knows the executor by an earlier sign of life, and misses the latest starts."""
    await shared.limits.run_once()
    await shared.ask("before", job_limit=5)
    await shared.away()
    await shared.ask("meanwhile", job_limit=5)
    shared.gates.available = True
    await shared.limits.run_once()
    assert shared.gates.restored == [{TARGET: {"job": [("meanwhile#1", NOW), ("before#1", NOW)]}}]


async def test_what_is_let_through_while_redis_is_told_is_told_before_limits_are_shared(shared: Limits) -> None:
    await shared.away()
    await shared.ask("e1", job_limit=60)
    shared.gates.available = True
    await shared.limits.run_once()
    await shared.ask("e2", job_limit=60)
    await shared.clock.advance(RETURN_SECONDS)
    restore = shared.gates.restore
    later = NOW + round(RETURN_SECONDS * SECOND)

    async def slow_restore(starts: Mapping[TargetKey, Mapping[str, Sequence[tuple[str, int]]]]) -> None:
        if not shared.limits.shared and "e3#1" not in str(starts):
            await shared.ask("e3", job_limit=60)
        await restore(starts)

    shared.gates.restore = slow_restore  # type: ignore[method-assign]
    await shared.limits.run_once()
    assert shared.limits.shared
    assert shared.gates.restored[1:] == [
        {TARGET: {"job": [("e2#1", NOW)]}},
        {TARGET: {"job": [("e3#1", later)]}},
    ]


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        (GateSummary(closed_until=NOW + 30 * SECOND, hits=1), DeferReason.TARGET_RATE_LIMIT),
        (GateSummary(CircuitState.OPEN, circuit_until=NOW + 30 * SECOND), DeferReason.CIRCUIT_OPEN),
    ],
)
async def test_apart_a_host_goes_on_being_left_alone(shared: Limits, summary: GateSummary, reason: DeferReason) -> None:
    shared.gates.summary = summary
    await shared.ask("before")
    shared.gates.available = False
    assert await shared.ask("e1") == [Deferred(NOW + 30 * SECOND, reason)]
    await shared.clock.advance(31)
    assert isinstance((await shared.ask("e1"))[0], Admitted)


async def test_what_a_host_asked_for_apart_is_told_before_limits_are_shared(shared: Limits) -> None:
    await shared.away()
    asked_for = Feedback(limited=True, close_until=NOW + 600 * SECOND)
    await shared.limits.exchange([(TARGET, a_note("e1", asked_for))], [])
    shared.gates.available = True
    await shared.limits.run_once()
    assert [note.feedback for note in shared.gates.noted] == [Feedback(close_until=NOW + 600 * SECOND)]


async def test_a_redis_that_forgot_is_told_who_asked_to_be_left_alone(shared: Limits) -> None:
    shared.gates.summary = GateSummary(closed_until=NOW + 600 * SECOND, hits=1)
    await shared.limits.exchange([(TARGET, a_note("e1"))], [])
    shared.gates.noted.clear()
    shared.gates.known = False
    await shared.limits.run_once()
    assert [note.feedback for note in shared.gates.noted] == [Feedback(close_until=NOW + 600 * SECOND)]


# What is told of hosts


class Watched:
    def __init__(self, clock: FakeClock) -> None:
        self.service = FakeAttemptService()
        self.observer = RecordingObserver()
        self.watch = HostWatch(self.service, self.observer, clock, clock)


@pytest.fixture
def watched(clock: FakeClock) -> Watched:
    return Watched(clock)


async def test_a_change_is_reported_once(watched: Watched) -> None:
    watched.watch.asked([TARGET], [GateSummary()])
    assert [await watched.watch.run_once(), await watched.watch.run_once()] == [1, 0]
    opened = GateSummary(CircuitState.OPEN, circuit_until=NOW + SECOND)
    watched.watch.told([(TARGET, a_note())], [opened])
    await watched.watch.run_once()
    assert [host.summary for report in watched.service.hosts for host in report] == [GateSummary(), opened]
    assert watched.observer.circuits == [CircuitState.OPEN]


async def test_a_report_says_when_it_was_seen_not_when_it_is_made(watched: Watched, clock: FakeClock) -> None:
    seen = clock.now()
    watched.watch.asked([TARGET], [GateSummary()])
    await clock.advance(3)
    await watched.watch.run_once()
    assert [host.observe_time for host in watched.service.hosts[0]] == [seen]


async def test_a_host_without_a_change_is_told_of_again_after_an_hour(watched: Watched, clock: FakeClock) -> None:
    watched.watch.asked([TARGET], [GateSummary()])
    await watched.watch.run_once()
    await clock.advance(TOLD_AGAIN_SECONDS)
    watched.watch.asked([TARGET], [GateSummary()])
    assert await watched.watch.run_once() == 1


async def test_a_report_that_fails_is_made_again(watched: Watched) -> None:
    watched.watch.asked([TARGET], [GateSummary()])
    watched.service.available = False
    with pytest.raises(UnavailableError):
        await watched.watch.run_once()
    watched.service.available = True
    assert await watched.watch.run_once() == 1


async def test_repeated_hits_are_counted_and_raise_an_event_at_each_doubling(watched: Watched) -> None:
    limited = Feedback(limited=True)
    with capture_logs() as logs:
        for hits in range(1, 14):
            watched.watch.told([(TARGET, a_note(feedback=limited))], [GateSummary(hits=hits)])
        # Another answer of the same episode.
        watched.watch.told([(TARGET, a_note(feedback=limited))], [GateSummary(hits=13)])
    assert watched.observer.hits == 13
    events = [entry["hits_in_a_row"] for entry in logs if entry["event"] == "target.rate_limited"]
    assert events == [3, 6, 12]
