"""The processes, made of the code of production: use cases, the servicers of the internal port, clients, duties.

What is simulated is around them: the database, the stream, the network, targets and time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from random import Random
from typing import Any

from libs.common.clock_offset import OffsetEstimator
from libs.common.supervised_loop import run_forever
from services.dispatcher.adapters.scheduler_client import SchedulerClient
from services.dispatcher.adapters.stream_sink import StreamSink
from services.dispatcher.app import Duties
from services.dispatcher.settings import DispatcherSettings
from services.executor.adapters.scheduler_attempts import SchedulerAttempts
from services.executor.adapters.scheduler_clock import EstimatedClock
from services.executor.adapters.stream_deliveries import StreamDeliveries
from services.executor.settings import ExecutorSettings
from services.executor.wiring import Ports, wire
from services.scheduler.adapters.due_nudge import InProcessNudge
from services.scheduler.adapters.rpc.attempt_service import AttemptService
from services.scheduler.adapters.rpc.dispatch_service import DispatchService
from services.scheduler.domain.target_host import HostLimits, TargetHost
from services.scheduler.testing.open_secrets import OpenSecrets
from services.scheduler.usecases.acquire_due import AcquireDue
from services.scheduler.usecases.audit import JobAudit
from services.scheduler.usecases.begin_attempts import BeginAttempts
from services.scheduler.usecases.callbacks import WriteCallbacks
from services.scheduler.usecases.cancel_execution import CancelExecution
from services.scheduler.usecases.change_job_state import ChangeJobState
from services.scheduler.usecases.extend_leases import ExtendLeases
from services.scheduler.usecases.grant_details import DescribeGrants
from services.scheduler.usecases.lease_partitions import LeasePartitions
from services.scheduler.usecases.report_attempts import ReportAttempts
from services.scheduler.usecases.requested_execution import RequestExecution
from services.scheduler.usecases.settle import SettleFinished, SweepUnsettled
from services.scheduler.usecases.target_hosts import HostKey
from services.scheduler.usecases.update_job import UpdateJob
from tests.support.scheduler_world import AnswerCount, NoFields, Orgs
from tests.support.simulation.kernel import Kernel, ProcessClock
from tests.support.simulation.network import PUBLIC, Channel, Network
from tests.support.simulation.plan import Plan
from tests.support.simulation.storage import RETENTION, Storage, StreamConnection
from tests.support.simulation.targets import Caller, LoopAlarm, OpenGates, Silent, Targets

SWEEP_SECONDS = 5.0
# A longer wait than by default: each look costs, and the nudge wakes it anyway.
_DISPATCHER = DispatcherSettings(poll_wait_seconds=1.5)
_EXECUTOR = ExecutorSettings(executor_concurrency=3, executor_prefetch=3, reap_idle_seconds=30, drain_seconds=5)


class Surroundings:
    """What all processes of one simulation share."""

    def __init__(self, plan: Plan, kernel: Kernel, rng: Random) -> None:
        self.plan = plan
        self.kernel = kernel
        self.rng = rng
        self.storage = Storage(kernel, rng)
        self.network = Network(kernel, rng)
        self.targets = Targets(kernel, rng)


class Process:
    """One process: a loop, a clock, and a main task."""

    kind = ""

    def __init__(self, around: Surroundings, number: int, generation: int) -> None:
        self.name = f"{self.kind}-{number}.{generation}"
        self.number = number
        self.generation = generation
        self.around = around
        self.loop = around.kernel.new_loop()
        most = around.plan.offsets[self.kind]
        self.offset = timedelta(seconds=around.rng.uniform(-most, most) if most else 0.0)
        self.clock = ProcessClock(self.loop, self.offset)
        self.stopping = asyncio.Event()
        self.ended = False

    def start(self) -> None:
        self.loop.create_task(self._main())

    async def _main(self) -> None:
        try:
            await self.run()
        except Exception as error:  # noqa: BLE001 - no process ends by itself, whatever happens to it
            self.around.kernel.failures.append(error)
        self.ended = True

    async def run(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Send SIGTERM."""
        self.loop.call_soon(self.stopping.set)


class Scheduler(Process):
    """A replica: the use cases, the internal port's servicers, the sweep, and what callers call."""

    kind = "scheduler"

    def __init__(self, around: Surroundings, number: int, generation: int) -> None:
        super().__init__(around, number, generation)
        jobs, executions, clock = around.storage.jobs_of_new_replica(), around.storage.executions, self.clock
        nudge = InProcessNudge()
        callbacks = WriteCallbacks(jobs, executions, Orgs(), nudge, clock)
        settle = SettleFinished(jobs, executions, nudge, clock, callbacks)
        lease = timedelta(seconds=around.plan.lease_seconds)
        audit = JobAudit(NoFields())
        hosts = PlainHosts()
        self._sweep = SweepUnsettled(jobs, executions, settle, clock)
        attempts = AttemptService(
            BeginAttempts(
                jobs=jobs, executions=executions, settle=settle, secrets=OpenSecrets(), clock=clock, lease=lease
            ),
            ExtendLeases(executions, clock, lease),
            ReportAttempts(jobs, executions, settle, nudge, AnswerCount(), clock, around.rng.random),
            DescribeGrants(NoKeys(), hosts, HostLimits(600, 100), executions),
            hosts,
            # The targets' answers are small: nothing is uploaded.
            store_answer=None,
            clock=clock,
            lease=lease,
        )
        dispatch = DispatchService(
            AcquireDue(jobs, executions, around.storage.due, nudge, clock, RETENTION),
            LeasePartitions(around.storage.partitions, clock),
            clock,
        )
        self.changes = ChangeJobState(jobs, executions, nudge, audit, clock, RETENTION)
        self.updates = UpdateJob(jobs, executions, nudge, AnyInterval(), audit, clock, RETENTION)
        self.requests = RequestExecution(jobs, executions, nudge, clock)
        self.cancels = CancelExecution(jobs, executions, settle, clock)
        self._internal = {
            "BeginAttempts": attempts.BeginAttempts,
            "PollReady": attempts.PollReady,
            "ExtendLeases": attempts.ExtendLeases,
            "ReportAttempts": attempts.ReportAttempts,
            "ReportTargetHosts": attempts.ReportTargetHosts,
            "AcquireDue": dispatch.AcquireDue,
            "LeasePartitions": dispatch.LeasePartitions,
            "ReleasePartitions": dispatch.ReleasePartitions,
        }
        around.network.servers.append(self)

    async def serve(self, method: str, request: Any) -> Any:
        if method == PUBLIC:
            return await request(self)
        return await self._internal[method](request, None)

    async def run(self) -> None:
        await run_forever(
            "sweep", self._sweep.run_once, interval=SWEEP_SECONDS, stopping=self.stopping, clock=self.clock
        )


class Dispatcher(Process):
    """A dispatcher with its four loops."""

    kind = "dispatcher"

    async def run(self) -> None:
        around = self.around
        settings = _DISPATCHER.model_copy(update={"partition_lease_seconds": around.plan.partition_lease_seconds})
        stream = StreamConnection(around.storage, around.rng, self.loop)
        duties = Duties.over(
            SchedulerClient(Channel(around.network, self.loop), self.name), StreamSink(stream), self.clock, settings
        )
        await duties.run(self.stopping, NoHealth())


class Executor(Process):
    """An executor with all its duties."""

    kind = "executor"

    async def run(self) -> None:
        around, estimator = self.around, OffsetEstimator()
        self.estimator = estimator
        ports = Ports(
            service=SchedulerAttempts(Channel(around.network, self.loop), self.name, self.clock, estimator),
            deliveries=StreamDeliveries(
                StreamConnection(around.storage, around.rng, self.loop), self.name, _EXECUTOR.reap_idle_seconds
            ),
            caller=Caller(around.targets, self.name, self.clock.sleep),
            gates=OpenGates(around.targets),
            observer=Silent(),
            make_alarm=lambda on_ring: LoopAlarm(self.loop, on_ring),
            clock=self.clock,
            scheduler_clock=EstimatedClock(self.clock, estimator),
        )
        executor = wire(ports, self.name, _EXECUTOR, NoHealth(), self.stopping)
        await executor.run(self.stopping)


MAKERS: Mapping[str, type[Process]] = {kind.kind: kind for kind in (Scheduler, Dispatcher, Executor)}


class NoHealth:
    """Takes services and checks, and asks none."""

    def add_service(self, *_: object) -> None: ...

    def add_check(self, *_: object) -> None: ...

    async def drain(self) -> None: ...


class NoKeys:
    """Implements `SigningKeys` for orgs without any."""

    async def load(self, org_ids: Collection[str]) -> Mapping[str, Sequence[bytes]]:
        return {}


class PlainHosts:
    """Implements `KnownLimits`, and takes observations in."""

    async def load(self, hosts: Collection[HostKey]) -> Mapping[HostKey, TargetHost]:
        return {key: TargetHost(*key) for key in hosts}

    async def observe(self, hosts: Sequence[TargetHost]) -> None: ...


class AnyInterval:
    """Implements the part of `OrgQuotas` that an update asks for."""

    async def min_interval(self, org_id: str) -> timedelta:
        return timedelta(0)
