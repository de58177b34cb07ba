"""The dispatcher's composition root: what is made, what runs, and in which order it ends.

Any restart order works: the loops start without scheduler or Redis and try until they are there. On SIGTERM acquiring
stops first, then everything held goes onto the stream, then the partitions go back, so that a restart costs no lag.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from libs.common.clock import Clock, SystemClock
from libs.common.ids import process_id
from libs.common.lifecycle import run
from libs.common.logs import configure_logging, get_logger
from libs.common.rpc.health import LIVENESS, READINESS, HealthReporter
from libs.common.rpc.reloading_channel import open_internal_channel
from libs.common.rpc.server import RpcServer
from libs.common.settings import start_settings
from libs.common.streams.connection import open_redis
from libs.common.streams.eviction_check import CHECK_INTERVAL_SECONDS, EvictionCheck
from libs.common.streams.redis_metrics import MeasuredDueStream
from libs.common.supervised_loop import Backoff, Heartbeat, run_forever
from libs.common.tracing import configure_tracing
from services.dispatcher.adapters.dispatch_metrics import DispatchMetrics
from services.dispatcher.adapters.scheduler_client import SchedulerClient
from services.dispatcher.adapters.stream_sink import StreamSink
from services.dispatcher.domain.backpressure import Bounds
from services.dispatcher.settings import DispatcherSettings
from services.dispatcher.signals import LOOK_SECONDS, Signals
from services.dispatcher.usecases.acquire import Acquire
from services.dispatcher.usecases.backlog import Backlog
from services.dispatcher.usecases.deliver import Deliver
from services.dispatcher.usecases.held_entries import HeldEntries
from services.dispatcher.usecases.partitions import Partitions
from services.dispatcher.usecases.ports import Scheduler, Stream

SERVICE = "dispatcher"
_BACKLOG_INTERVAL_SECONDS = 0.1
_STOP_GRACE_SECONDS = 1.0

log = get_logger(__name__)


def main() -> None:
    """Run the dispatcher until it is told to stop."""
    settings = start_settings(DispatcherSettings, "services.dispatcher")
    configure_logging(settings.log_level, settings.log_format, SERVICE)
    stop_tracing = configure_tracing(SERVICE)
    try:
        run(lambda stopping: serve(settings, stopping), drain_seconds=settings.drain_seconds)
    finally:
        stop_tracing()


async def serve(settings: DispatcherSettings, stopping: asyncio.Event) -> None:
    """Connect the edges, run the duties, and close the edges in reverse order."""
    clock, signals = SystemClock(), Signals()
    dispatcher_id = process_id(SERVICE)
    async with AsyncExitStack() as edges:
        channel = open_internal_channel(settings.scheduler_internal_address, settings.internal_tls)
        edges.push_async_callback(channel.close)
        stream = MeasuredDueStream(
            open_redis(settings.redis_url.get_secret_value()),
            signals.redis,
            key_prefix=settings.redis_key_prefix,
            shards=settings.stream_shards,
        )
        edges.push_async_callback(stream.close)
        eviction = EvictionCheck(stream.eviction_policies)
        scheduler: Scheduler = SchedulerClient(channel, dispatcher_id)
        sink: Stream = StreamSink(stream)
        if signals.traces is not None:
            scheduler, sink = signals.traces.scheduler(scheduler), signals.traces.stream(sink)
        duties = Duties.over(scheduler, sink, clock, settings)
        duties.show(signals.dispatch)
        health = HealthReporter()
        duties.add_checks(health)
        health.add_check("redis_memory", READINESS, eviction.check)
        endpoint = signals.process.serve(settings.metrics_address, edges)
        server = RpcServer(settings.dispatcher_health_address, health=health, reflection_services=())
        await server.start()
        edges.push_async_callback(server.stop, _STOP_GRACE_SECONDS)
        log.info(
            "dispatcher.started",
            dispatcher_id=dispatcher_id,
            health_port=server.port,
            metrics_port=endpoint.port if endpoint else None,
        )
        async with asyncio.TaskGroup() as watching:
            watching.create_task(
                run_forever(
                    "redis_memory",
                    eviction.run_once,
                    interval=CHECK_INTERVAL_SECONDS,
                    stopping=stopping,
                    clock=clock,
                )
            )
            watching.create_task(
                run_forever(
                    "stream_levels",
                    lambda: signals.dispatch.look(stream),
                    interval=LOOK_SECONDS,
                    stopping=stopping,
                    clock=clock,
                )
            )
            await duties.run(stopping, health)
    log.info("dispatcher.stopped", dropped=duties.deliver.dropped)


@dataclass(frozen=True, slots=True)
class Duties:
    """The four loops of the dispatcher, wired to each other."""

    clock: Clock
    partitions: Partitions
    backlog: Backlog
    acquire: Acquire
    deliver: Deliver
    heartbeats: dict[str, Heartbeat]

    @classmethod
    def over(cls, scheduler: Scheduler, stream: Stream, clock: Clock, settings: DispatcherSettings) -> Duties:
        """Wire the duties over the ports."""
        bounds = Bounds(settings.max_held, settings.max_stream_backlog, settings.acquire_batch)
        held = HeldEntries()
        backlog = Backlog(stream, clock, settings.max_stream_backlog)
        partitions = Partitions(scheduler, clock, lease_seconds=settings.partition_lease_seconds)
        acquire = Acquire(
            scheduler,
            partitions,
            held,
            backlog,
            clock,
            bounds=bounds,
            horizon_seconds=settings.horizon_seconds,
            wait_seconds=settings.poll_wait_seconds,
        )
        deliver = Deliver(
            stream,
            held,
            backlog,
            clock,
            now=lambda: clock.now() + partitions.clock_offset(),
            bounds=bounds,
            lead=timedelta(seconds=settings.lead_seconds),
            grace=timedelta(seconds=settings.grace_seconds),
        )
        names = ("partitions", "backlog", "acquire", "deliver")
        return cls(
            clock,
            partitions,
            backlog,
            acquire,
            deliver,
            {name: Heartbeat(clock) for name in names},
        )

    def show(self, metrics: DispatchMetrics) -> None:
        """Have the metrics show what the duties hold."""
        metrics.show(
            partitions=lambda: len(self.partitions.held()),
            entries=lambda: self.acquire.held_count,
            dropped=lambda: self.deliver.dropped,
            clock_offset=lambda: self.partitions.measured_offset().total_seconds(),
        )

    def add_checks(self, health: HealthReporter) -> None:
        """Alive while every loop goes round; ready while the scheduler answers."""
        for name, heartbeat in self.heartbeats.items():
            health.add_check(name, LIVENESS, heartbeat.check)
        health.add_check("partitions", READINESS, self.partitions.check)
        health.add_check("acquire", READINESS, self.acquire.check)

    async def run(self, stopping: asyncio.Event, health: HealthReporter) -> None:
        """Run until `stopping`, then drain."""
        acquired_last, handed_over = asyncio.Event(), asyncio.Event()
        third = self.partitions.renewal_seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._loop("partitions", self.partitions.renew, third, handed_over, Backoff(0.1, third)))
            tasks.create_task(self._loop("backlog", self.backlog.look, _BACKLOG_INTERVAL_SECONDS, handed_over))
            delivering = tasks.create_task(self._loop("deliver", self.deliver.run_once, 0, acquired_last))
            await self._loop("acquire", self.acquire.run_once, 0, stopping, Backoff(0.05, 1.0))
            await health.drain()
            acquired_last.set()
            self.deliver.wake()
            await delivering
            delivered = await self.deliver.hand_over()
            log.info("dispatcher.handed_over", delivered=delivered)
            handed_over.set()
            self.backlog.wake()
        await self.partitions.release()

    async def _loop(
        self,
        name: str,
        run_once: Callable[[], Awaitable[object]],
        interval: float,
        stopping: asyncio.Event,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    ) -> None:
        await run_forever(
            name,
            run_once,
            interval=interval,
            stopping=stopping,
            clock=self.clock,
            heartbeat=self.heartbeats[name],
            backoff=backoff,
        )
