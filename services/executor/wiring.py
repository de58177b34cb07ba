"""Wires the executor's use cases to each other, over whatever ports it is given: real ones in `app`, fakes in tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from libs.common.clock import Clock
from libs.common.rpc.health import LIVENESS, READINESS, HealthReporter
from libs.common.supervised_loop import Heartbeat
from services.executor.domain.delivery_mode import DeliveryMode
from services.executor.settings import ExecutorSettings
from services.executor.usecases.acknowledger import Acknowledger
from services.executor.usecases.admission_desk import AdmissionDesk
from services.executor.usecases.admission_queue import AdmissionQueue
from services.executor.usecases.answer_delivery import AnswerDelivery
from services.executor.usecases.attempt_runner import AttemptRunner
from services.executor.usecases.drain import Drain
from services.executor.usecases.due_waiter import DueWaiter
from services.executor.usecases.executor import Duty, Executor
from services.executor.usecases.fetch_status import FetchStatus
from services.executor.usecases.held_attempts import HeldAttempts
from services.executor.usecases.host_watch import HostWatch
from services.executor.usecases.instants import Instants
from services.executor.usecases.intake import Intake
from services.executor.usecases.lease_keeper import CHECK_INTERVAL_SECONDS, LeaseKeeper
from services.executor.usecases.poller import Poller
from services.executor.usecases.ports import (
    AlarmFactory,
    AttemptService,
    Deliveries,
    ExecutorObserver,
    SchedulerClock,
    SharedGates,
    TargetCaller,
)
from services.executor.usecases.reaper import Reaper
from services.executor.usecases.report_batcher import ReportBatcher
from services.executor.usecases.shared_limits import KEEP_SECONDS, SharedLimits
from services.executor.usecases.slot_shares import SlotShares
from services.executor.usecases.stream_reader import StreamReader

SILENCE_SECONDS = 1.5
"""A read of Redis that has no answer for longer counts as an outage; above the second that an idle read takes."""
RECOVERY_SECONDS = 5.0
"""How long both paths deliver after an outage; covers a dispatcher that notices late."""
SHARES_SECONDS = 0.5
"""How often it is looked who waits too long for a slot of its org's share."""
HOST_REPORT_SECONDS = 3.0
"""How often changes of target hosts are reported."""
STREAMS = "streams"
"""The health service that says whether due work comes by the streams alone; without Redis it does not, and all is well
with readiness."""
_DRAIN_MARGIN = 0.9
"""The part of the process's drain deadline that the executor's own drain may take; the edges close in the rest."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The world as the executor sees it."""

    service: AttemptService
    deliveries: Deliveries
    caller: TargetCaller
    gates: SharedGates
    observer: ExecutorObserver
    make_alarm: AlarmFactory
    clock: Clock
    scheduler_clock: SchedulerClock


def wire(
    ports: Ports, executor_id: str, settings: ExecutorSettings, health: HealthReporter, stopping: asyncio.Event
) -> Executor:
    """Return an executor over these ports, with its health checks added."""
    clock, chance = ports.clock, random.Random()  # noqa: S311 - spreads polls and waits, guards nothing
    held = HeldAttempts(settings.executor_concurrency + settings.executor_prefetch)
    acknowledger = Acknowledger(ports.deliveries, clock)
    reports = ReportBatcher(
        ports.service,
        held,
        acknowledger,
        ports.observer,
        clock,
        window_seconds=settings.report_window_seconds,
        batch_size=settings.report_batch,
    )
    admission = AdmissionQueue(clock, ports.scheduler_clock)
    runner = AttemptRunner(
        caller=ports.caller,
        admission=admission,
        answers=AnswerDelivery(ports.service, clock, settings.upload_patience_seconds),
        reports=reports,
        observer=ports.observer,
        instants=Instants(ports.scheduler_clock, ports.make_alarm),
        clock=clock,
        scheduler_clock=ports.scheduler_clock,
    )
    waiter = DueWaiter(
        ports.scheduler_clock,
        ports.make_alarm,
        runner.start,
        settings.executor_concurrency,
        org_share=settings.executor_org_share,
    )
    watch = HostWatch(ports.service, ports.observer, clock, ports.scheduler_clock)
    limits = SharedLimits(
        ports.gates,
        settings.gate_rules,
        watch,
        ports.observer,
        clock=clock,
        scheduler_clock=ports.scheduler_clock,
        executor_id=executor_id,
        assumed_executors=settings.assumed_executors,
    )
    desk = AdmissionDesk(
        queue=admission,
        limits=limits,
        waiter=waiter,
        runner=runner,
        scheduler_clock=ports.scheduler_clock,
        chance=chance.random,
    )
    intake = Intake(ports.service, held, admission, acknowledger, clock)
    status = FetchStatus(
        DeliveryMode(silence_seconds=SILENCE_SECONDS, recovery_seconds=RECOVERY_SECONDS),
        clock,
        ports.observer,
        settings.ready_within_seconds,
    )
    readers = [
        StreamReader(
            shard=shard,
            readers=settings.stream_shards,
            deliveries=ports.deliveries,
            intake=intake,
            held=held,
            status=status,
            clock=clock,
            scheduler_clock=ports.scheduler_clock,
            stopping=stopping,
            gather_seconds=settings.begin_window_seconds,
        )
        for shard in range(settings.stream_shards)
    ]
    poller = Poller(
        intake=intake,
        held=held,
        status=status,
        clock=clock,
        scheduler_clock=ports.scheduler_clock,
        stopping=stopping,
        interval_seconds=settings.poll_interval_seconds,
        jitter=chance,
    )
    duty = _DutyMaker(clock, health)
    health.add_check("fetch", READINESS, status.not_ready)
    health.add_service(STREAMS)
    health.add_check("mode", STREAMS, status.not_streams)
    return Executor(
        intake=[
            *(duty.make(f"read-{reader.shard}", reader.run_once) for reader in readers),
            duty.make("poll", poller.run_once),
        ],
        delivery=[
            # A pass over many shards takes long on a slow Redis: the end of the intake, and with it the drain, must not
            # wait for it.
            duty.make(
                "reap", Reaper(ports.deliveries, settings.stream_shards).run_once, settings.reap_interval_seconds
            ),
            duty.make("admission", desk.run_once),
            duty.make("slot_shares", SlotShares(waiter, admission, runner).run_once, SHARES_SECONDS),
            duty.make("limits", limits.run_once, KEEP_SECONDS),
            duty.make("target_hosts", watch.run_once, HOST_REPORT_SECONDS),
            duty.make("report", reports.run_once),
            duty.make("report_beside", reports.run_beside),
            duty.make("acknowledge", acknowledger.run_once),
            duty.make("leases", LeaseKeeper(ports.service, held, runner, clock).run_once, CHECK_INTERVAL_SECONDS),
        ],
        drain=Drain(
            held,
            runner,
            admission,
            acknowledger,
            clock=clock,
            scheduler_clock=ports.scheduler_clock,
            seconds=settings.drain_seconds * _DRAIN_MARGIN,
        ),
        on_stopping=health.drain,
        clock=clock,
    )


@dataclass(frozen=True, slots=True)
class _DutyMaker:
    """Makes duties, each with a heartbeat that liveness goes by."""

    clock: Clock
    health: HealthReporter

    def make(self, name: str, run_once: Callable[[], Awaitable[object]], interval: float = 0) -> Duty:
        heartbeat = Heartbeat(self.clock, max_age_seconds=30.0 + interval)
        self.health.add_check(name, LIVENESS, heartbeat.check)
        return Duty(name, run_once, interval, heartbeat)
