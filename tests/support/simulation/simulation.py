"""Runs one seed: starts everything, lets the planned things happen, lets the faults cease, and judges the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import random
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import structlog

from libs.common import lifecycle, supervised_loop
from libs.common.errors import PunctualError
from services.dispatcher import app as dispatcher_app
from services.dispatcher.usecases import acquire
from services.executor import wiring
from services.executor.usecases import poller
from services.scheduler.domain.execution import Execution
from services.scheduler.domain.job import Job, JobDefinition, JobState, partition_of
from services.scheduler.domain.schedule import Schedule, engine
from tests.support.simulation.kernel import EPOCH, Kernel, ProcessLoop, State, first_of
from tests.support.simulation.network import PUBLIC
from tests.support.simulation.plan import CALLER, FAIR, Action, Happening, Plan, Trouble, draw
from tests.support.simulation.processes import MAKERS, Executor, Process, Scheduler, Surroundings
from tests.support.simulation.seconds_schedule import PERIODS, every, next_of_rule
from tests.support.simulation.storage import held_slots
from tests.support.simulation.watch import Finding, Watch

DRAIN_SECONDS = 240.0
"""Virtual time after the faults in which everything must come to its end."""
ORPHAN_SECONDS = 80.0
"""Likewise for jobs whose completion died with a process."""
PARTITIONS = 8
_LOOK_SECONDS = 0.5
_CALL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed."""

    seed: int
    finding: str = ""
    trace: tuple[str, ...] = ()
    executions: int = 0
    posts: int = 0
    steps: int = 0
    """Operations of the database, after each of which everything was checked."""
    virtual_seconds: float = 0.0
    digest: str = ""
    """Tells one way of events from another; the same seed always has the same."""


def simulate(seed: int, always: frozenset[Trouble] = frozenset()) -> Outcome:
    """Run a seed, within `quickened`."""
    simulation = Simulation(draw(seed, always))
    finding = ""
    try:
        simulation.run()
    except Exception as error:  # noqa: BLE001 - whatever escapes is a finding
        finding = str(error) if isinstance(error, Finding) else "".join(traceback.format_exception(error))
    finally:
        simulation.kernel.close()
    return Outcome(
        seed,
        finding,
        simulation.story() if finding else (),
        len(simulation.around.storage.executions._records),
        sum(map(len, simulation.around.targets.posts.values())),
        simulation.watch.steps,
        simulation.kernel.micros / 1e6,
        hashlib.sha256(repr(list(simulation.watch.trace)).encode()).hexdigest(),
    )


class Simulation:
    """One seed on its way."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.kernel = Kernel()
        self.rng = random.Random(plan.seed + 1)
        self.around = Surroundings(plan, self.kernel, self.rng)
        self.watch = Watch(plan, self.kernel, self.around.storage, self.around.targets)
        self.watch.early_by = self._clock_error
        self.processes: dict[tuple[str, int], Process] = {}
        self._named: dict[str, Process] = {}
        self._caller = self.kernel.new_loop()
        self._acknowledged: set[str] = set()
        self._requests = 0
        self._calls_open = 0

    def run(self) -> None:
        random.seed(self.plan.seed)
        plan, kernel = self.plan, self.kernel
        for kind, count in plan.replicas.items():
            for number in range(count):
                self._start(kind, number, 0)
        for created, job in plan.jobs:
            kernel.after(created, self._create, job)
        for happening in plan.happenings:
            kernel.after(happening.at, self._happen, happening)
        self._set_weather(plan.weather)
        kernel.run_for(plan.fault_seconds)
        self._cease()
        self._run_until(self._is_quiet, DRAIN_SECONDS)
        if self._orphans():
            for process in self.processes.values():
                if not isinstance(process, Scheduler):
                    process.loop.kill()
            self._run_until(lambda: not self._orphans(), ORPHAN_SECONDS)
        self._judge()

    def _run_until(self, condition: Callable[[], bool], most: float) -> None:
        end = self.kernel.micros + most * 1e6
        while not condition() and self.kernel.micros < end:
            self.kernel.run_for(_LOOK_SECONDS)

    # Processes

    def _start(self, kind: str, number: int, generation: int) -> None:
        process = MAKERS[kind](self.around, number, generation)
        self.processes[kind, number] = process
        self._named[process.name] = process
        self.watch.note(process.name, "starts")
        process.start()

    def _end(self, process: Process) -> None:
        process.loop.kill()
        if isinstance(process, Scheduler):
            self.around.network.servers.remove(process)
            self.around.network.connection_lost(process)

    def _restart(self, kind: str, number: int) -> None:
        process = self.processes[kind, number]
        if process.loop.state is State.DEAD:
            self._start(kind, number, process.generation + 1)

    def _happen(self, what: Happening) -> None:
        if what.action is Action.FLUSH:
            self.watch.note("stream", "FLUSHALL")
            self.around.storage.stream.flush()
        elif what.action is Action.STREAM_AWAY:
            self.watch.note("stream", f"away for {what.seconds:.1f} s")
            self._set_stream(available=False)
            self.kernel.after(what.seconds, partial(self._set_stream, available=True))
        elif what.kind:
            process = self.processes[what.kind, what.number % self.plan.replicas[what.kind]]
            self._strike(process, what)
        else:
            self._call(what)

    def _set_stream(self, *, available: bool) -> None:
        self.around.storage.stream.available = available

    def _strike(self, process: Process, what: Happening) -> None:
        if process.loop.state is not State.RUNNING:
            return
        self.watch.note(process.name, f"{what.action} {what.seconds:.1f} s")
        if what.action is Action.FREEZE:
            process.loop.freeze()
            self.kernel.after(what.seconds, process.loop.thaw)
            return
        if what.action is Action.DRAIN:
            process.stop()
            self.kernel.after(6.0 + what.seconds, self._replace, process)
            return
        self._end(process)
        self.kernel.after(what.seconds, self._restart, process.kind, process.number)

    def _replace(self, process: Process) -> None:
        """Start the next one after a drained one, which has ended by itself or is ended now."""
        if process.loop.state is not State.DEAD:
            if not process.ended:
                self.watch.note(process.name, "did not drain in time")
            self._end(process)
            self._restart(process.kind, process.number)

    def _set_weather(self, weather: Any) -> None:
        self.around.network.weather = weather
        self.around.storage.weather = weather
        self.around.targets.weather = weather

    def _cease(self) -> None:
        """Let the faults cease."""
        self.watch.note("world", "the faults cease")
        self._set_weather(FAIR)
        self._set_stream(available=True)
        for (kind, number), process in list(self.processes.items()):
            process.loop.thaw()
            self._restart(kind, number)

    def _clock_error(self, executor: str) -> timedelta:
        """Return by how much an executor may take the scheduler's clock for a later one than the true time."""
        process = self._named[executor]
        if not any(self.plan.offsets.values()) or not isinstance(process, Executor):
            return timedelta(0)
        best = process.estimator._best()
        unknown = timedelta(0)
        if best is None:
            unknown = timedelta(seconds=1)
        elif not process.estimator.offset():
            # It may be off by what the measurement could not tell from nothing, in both halves of the way.
            unknown = best.round_trip
        return unknown + timedelta(milliseconds=5) + timedelta(seconds=self.plan.offsets["scheduler"])

    # Callers

    def _create(self, job: Job) -> None:
        jobs = self.around.storage.jobs
        jobs._jobs[job.job_id] = job
        self.watch.look("jobs.insert_new.after")

    def _call(self, what: Happening) -> None:
        job_id = self.plan.jobs[what.number][1].job_id
        if job_id in self.around.storage.jobs.jobs:
            self.watch.note(job_id, f"caller: {what.action}")
            self._caller.create_task(self._calling(what.action, job_id))

    async def _calling(self, action: Action, job_id: str) -> None:
        self._calls_open += 1
        try:
            await self._insist(self._question(action, job_id))
        finally:
            self._calls_open -= 1

    async def _insist(self, ask: Callable[[Scheduler], Awaitable[object]]) -> None:
        for _ in range(3):
            try:
                answer = await self.around.network.call(self._caller, PUBLIC, ask, _CALL_SECONDS)
            except PunctualError as error:
                if error.reason != "UNAVAILABLE":
                    return
            else:
                if isinstance(answer, Execution):
                    self._acknowledged.add(answer.execution_id)
                return

    def _question(self, action: Action, job_id: str) -> Callable[[Scheduler], Awaitable[object]]:
        self._requests += 1
        key = f"key-{self._requests}"
        period, chance = self.rng.choice(PERIODS), self.rng.random()
        some = self._some_execution(job_id, final=action is Action.REPEAT)
        match action:
            case Action.PAUSE:
                return lambda s: s.changes.pause(CALLER, job_id)
            case Action.RESUME:
                return lambda s: s.changes.resume(CALLER, job_id)
            case Action.DELETE if chance < 0.5:
                return lambda s: s.changes.delete(CALLER, job_id)
            case Action.UPDATE:
                return lambda s: s.updates(CALLER, job_id, partial(_edited, period, key, chance, self.plan))
            case Action.CANCEL if some:
                return lambda s: s.cancels(CALLER, some)
            case Action.REPEAT if some:
                return lambda s: s.requests.retry(CALLER, some, idempotency_key=key)
            case _:
                return lambda s: s.requests.run(CALLER, job_id, allow_inactive=True, idempotency_key=key)

    def _some_execution(self, job_id: str, *, final: bool) -> str:
        executions = self.around.storage.executions.executions.values()
        found = [e.execution_id for e in executions if e.job_id == job_id and e.state.is_final is final]
        return self.rng.choice(found) if found else ""

    # The end

    def _is_quiet(self) -> bool:
        if self._calls_open or self.around.network.serves_callers or self._live():
            return False
        return not any(
            job.state is JobState.ACTIVE and job.next_fire_time for job in self.around.storage.jobs.jobs.values()
        )

    def _live(self) -> list[str]:
        records = self.around.storage.executions._records.values()
        return [r.execution.execution_id for r in records if r.execution.phase or not r.execution.state.is_final]

    def _orphans(self) -> list[str]:
        jobs = self.around.storage.jobs.jobs.values()
        return [job.job_id for job in jobs if job.state is JobState.ACTIVE and job.next_fire_time is None]

    def _judge(self) -> None:
        """Check what must hold in the end (promise P2)."""
        storage = self.around.storage
        self.watch.look("executions.after")
        self.watch.look("jobs.after")
        for name in self._live():
            execution = storage.executions.executions[name]
            self.watch.found("P2", name, f"is still {execution.state} {execution.phase}")
        for job in storage.jobs.jobs.values():
            if job.state is JobState.ACTIVE:
                self.watch.found("P2", job.job_id, f"is still ACTIVE, next fire {job.next_fire_time}")
        for name, slots in held_slots(storage.executions).items():
            self.watch.found("overlap", name, f"is over and holds slots {slots}")
        for name in sorted(self._acknowledged - storage.executions.executions.keys()):
            self.watch.found("P9", name, "was acknowledged and is not there")
        if self.kernel.failures:
            raise self.kernel.failures[0]

    def story(self) -> tuple[str, ...]:
        """Return the trace, as far as it tells of what was found."""
        finding = next((text for _, _, text in reversed(self.watch.trace) if text.startswith("***")), "")
        subject = next((who for _, who, text in reversed(self.watch.trace) if text == finding), "")
        job = subject.partition("-")[0]
        told = [
            f"{micros / 1e6:10.6f}  {who:40s} {text}"
            for micros, who, text in self.watch.trace
            if not subject or who in {subject, job} or not who.startswith("01K")
        ]
        plan = self.plan
        head = (
            f"seed {plan.seed}: {', '.join(sorted(plan.troubles)) or 'calm'}; {plan.replicas}; {plan.offsets};"
            f" leases {plan.lease_seconds:g} s, faults until {plan.fault_seconds:.1f} s"
        )
        return (head, *told)


def _edited(period: int, key: str, chance: float, plan: Plan, definition: JobDefinition) -> JobDefinition:
    if chance < 0.3:
        return replace(definition, name=key)
    end = definition.schedule.end_time or EPOCH + timedelta(seconds=plan.end_seconds)
    return replace(definition, schedule=Schedule(every(period), end_time=end, jitter=definition.schedule.jitter))


def _note_failure(_name: str, error: Exception, _failures: int, _last: str) -> str:
    """Stand in for the log of a duty's failure: one that is none of our own errors is a bug."""
    if not isinstance(error, PunctualError):
        cast("ProcessLoop", asyncio.get_running_loop()).kernel.failures.append(error)
    return ""


def _partition_of(job_id: str) -> int:
    return partition_of(job_id) % PARTITIONS


def _modules_with(name: str, value: object) -> list[Any]:
    """Return our modules that have imported something by name."""
    return [
        module
        for path, module in sorted(sys.modules.items())
        if path.startswith(("services.", "libs.")) and getattr(module, name, None) is value
    ]


@contextlib.contextmanager
def quickened() -> Iterator[None]:
    """Put in place what lets seeds run in milliseconds, and what makes them repeatable; once for many seeds."""
    before = random.getstate()
    swaps: list[tuple[Any, str, Any]] = [
        (engine, "_next_of_rule", next_of_rule),
        (wiring, "random", SimpleNamespace(Random=lambda: random.Random(random.getrandbits(64)))),
        # These only look around; at their real pace most of a seed would be spent on it.
        (poller, "WATCH_INTERVAL_SECONDS", 1.0),
        (dispatcher_app, "_BACKLOG_INTERVAL_SECONDS", 1.0),
        (acquire, "_IDLE_SECONDS", 0.5),
        (wiring, "KEEP_SECONDS", 5.0),
        (wiring, "HOST_REPORT_SECONDS", 10.0),
        *((module, "first_of", first_of) for module in _modules_with("first_of", lifecycle.first_of)),
        (supervised_loop, "_log_failure", _note_failure),
        # A few partitions are as good as many, and shorter to list.
        *((module, "PARTITION_COUNT", PARTITIONS) for module in _modules_with("PARTITION_COUNT", 256)),
        *((module, "partition_of", _partition_of) for module in _modules_with("partition_of", partition_of)),
    ]
    saved = [(place, name, getattr(place, name)) for place, name, _ in swaps]
    for place, name, value in swaps:
        setattr(place, name, value)
    collecting = gc.isenabled()
    gc.disable()
    configuration = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**configuration)
        if collecting:
            gc.enable()
        for place, name, value in saved:
            setattr(place, name, value)
        random.setstate(before)
