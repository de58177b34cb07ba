"""The executor's composition root: reads the settings, makes the edges, runs the executor between them.

Any restart order works: without scheduler or Redis the duties try until they are there.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from importlib.metadata import version

from libs.common.clock import SystemClock
from libs.common.clock_offset import OffsetEstimator
from libs.common.ids import process_id
from libs.common.lifecycle import run
from libs.common.logs import configure_logging, get_logger
from libs.common.rpc.health import READINESS, HealthReporter
from libs.common.rpc.reloading_channel import open_internal_channel
from libs.common.rpc.server import RpcServer
from libs.common.settings import start_settings
from libs.common.streams.connection import open_redis
from libs.common.streams.eviction_check import CHECK_INTERVAL_SECONDS, EvictionCheck
from libs.common.streams.redis_metrics import MeasuredDueStream
from libs.common.supervised_loop import run_forever
from libs.common.tracing import configure_tracing
from services.executor.adapters.due_alarm import make_alarm
from services.executor.adapters.http.answer_packing import AnswerPacker
from services.executor.adapters.http.deadlines import Deadlines
from services.executor.adapters.http.guarded_connector import GuardedConnector, SystemLookup
from services.executor.adapters.http.response_checks import ResponseChecker
from services.executor.adapters.http.target_caller import HttpTargetCaller
from services.executor.adapters.http.target_wire import TargetWire
from services.executor.adapters.measured_gates import MeasuredGates
from services.executor.adapters.redis_gates.gates import RedisGates
from services.executor.adapters.scheduler_attempts import SchedulerAttempts
from services.executor.adapters.scheduler_clock import EstimatedClock
from services.executor.adapters.stream_deliveries import StreamDeliveries
from services.executor.domain.address_guard import AddressGuard, AllowedTarget
from services.executor.settings import ExecutorSettings
from services.executor.signals import Signals
from services.executor.usecases.ports import AttemptService, SchedulerClock, TargetCaller
from services.executor.wiring import Ports, wire

SERVICE = "executor"
_GRANTS_BYTES = 64 * 1024 * 1024
"""A batch of grants carries whole requests."""
_COMMAND_CONNECTIONS = 8
"""To Redis, beside one for each reader, which blocks its own."""
_GATE_CONNECTIONS = 4
_ANSWER_THREADS = 2
_STOP_GRACE_SECONDS = 1.0

log = get_logger(__name__)


def main() -> None:
    """Run the executor until it is told to stop."""
    settings = start_settings(ExecutorSettings, "services.executor")
    configure_logging(settings.log_level, settings.log_format, SERVICE)
    stop_tracing = configure_tracing(SERVICE)
    try:
        run(lambda stopping: serve(settings, stopping), drain_seconds=settings.drain_seconds)
    finally:
        stop_tracing()


async def serve(settings: ExecutorSettings, stopping: asyncio.Event) -> None:
    """Make the edges, run the executor between them, and close them in reverse order."""
    clock, health, estimator = SystemClock(), HealthReporter(), OffsetEstimator()
    signals = Signals(estimator)
    executor_id = process_id(SERVICE)
    async with AsyncExitStack() as edges:
        channel = open_internal_channel(
            settings.scheduler_internal_address, settings.internal_tls, max_message_bytes=_GRANTS_BYTES
        )
        edges.push_async_callback(channel.close)
        stream = MeasuredDueStream(
            open_redis(
                settings.redis_url.get_secret_value(), max_connections=settings.stream_shards + _COMMAND_CONNECTIONS
            ),
            signals.redis,
            key_prefix=settings.redis_key_prefix,
            shards=settings.stream_shards,
        )
        edges.push_async_callback(stream.close)
        eviction = EvictionCheck(stream.eviction_policies)
        endpoint = signals.process.serve(settings.metrics_address, edges)
        service: AttemptService = SchedulerAttempts(channel, executor_id, clock, estimator)
        scheduler_clock = EstimatedClock(clock, estimator)
        caller: TargetCaller = open_target_caller(settings, scheduler_clock, edges)
        if signals.traces is not None:
            service, caller = signals.traces.service(service), signals.traces.caller(caller)
        ports = Ports(
            service=service,
            deliveries=StreamDeliveries(stream, executor_id, settings.reap_idle_seconds),
            caller=caller,
            gates=MeasuredGates(open_gates(settings, edges), signals.redis),
            observer=signals.observer,
            make_alarm=make_alarm,
            clock=clock,
            scheduler_clock=scheduler_clock,
        )
        executor = wire(ports, executor_id, settings, health, stopping)
        health.add_check("redis_memory", READINESS, eviction.check)
        server = RpcServer(settings.executor_health_address, health=health, reflection_services=())
        await server.start()
        edges.push_async_callback(server.stop, _STOP_GRACE_SECONDS)
        log.info(
            "executor.started",
            executor_id=executor_id,
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
            await executor.run(stopping)
    log.info("executor.stopped")


def open_gates(settings: ExecutorSettings, edges: AsyncExitStack) -> RedisGates:
    """Return the shared gates, on connections of their own; they close with `edges`."""
    gates = RedisGates(
        open_redis(
            settings.redis_url.get_secret_value(),
            max_connections=_GATE_CONNECTIONS,
            call_seconds=settings.limits_call_seconds,
        ),
        key_prefix=settings.redis_key_prefix,
        rules=settings.gate_rules,
        call_seconds=settings.limits_call_seconds,
    )
    edges.push_async_callback(gates.close)
    return gates


def open_target_caller(settings: ExecutorSettings, clock: SchedulerClock, edges: AsyncExitStack) -> HttpTargetCaller:
    """Return the HTTP edge; it closes with `edges`."""
    lookup = SystemLookup()
    edges.callback(lookup.close)
    threads = ThreadPoolExecutor(_ANSWER_THREADS, thread_name_prefix="answers")
    edges.callback(threads.shutdown, wait=False, cancel_futures=True)
    guard = AddressGuard([AllowedTarget.parse(item) for item in settings.allowed_targets])
    connector = GuardedConnector(
        guard,
        lookup,
        limit_per_host=settings.max_connections_per_host,
        keepalive_seconds=settings.keepalive_seconds,
        dns_cache_seconds=settings.dns_cache_seconds,
    )
    wire = TargetWire(connector)
    edges.push_async_callback(wire.close)
    deadlines = Deadlines(SystemClock())
    edges.callback(deadlines.close)
    return HttpTargetCaller(
        wire,
        deadlines,
        AnswerPacker(threads),
        ResponseChecker(threads),
        clock,
        user_agent=f"Punctual/{version('punctual')}",
    )
