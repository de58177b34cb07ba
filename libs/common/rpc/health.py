"""grpc.health.v1 with named checks: `liveness` (restart me if this fails), `readiness` (send me no work), and the empty
name, which says what readiness says. A process may add services of its own that no probe should ask.

A check is a function that returns why it fails, or None; it must not block. All are evaluated once a second. Draining
makes readiness fail for good, before the server stops listening, and leaves liveness alone: a process that drains must
not be killed for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_health.v1.health import aio as health_aio  # type: ignore[import-untyped]

from libs.common.logs import get_logger

LIVENESS = "liveness"
READINESS = "readiness"
OVERALL = ""
HEALTH_SERVICE = "grpc.health.v1.Health"
_STARTING = "starting"

Check = Callable[[], str | None]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _NamedCheck:
    """One reason why a service may be unhealthy."""

    name: str
    service: str
    check: Check


class HealthReporter:
    """Evaluates the checks and serves what they say. Not ready before the first evaluation, alive from the start."""

    def __init__(self, *, interval_seconds: float = 1.0) -> None:
        self._interval = interval_seconds
        self._checks: list[_NamedCheck] = []
        self._reasons: dict[str, tuple[str, ...]] = {LIVENESS: (), READINESS: ("starting: not evaluated yet",)}
        self._failing = {READINESS: frozenset({_STARTING})}
        """The names of the checks that failed when last evaluated."""
        self._published: dict[str, bool] = {}
        """What was said of each service last, so that only changes are told."""
        self._draining = False
        self._servicer = health_aio.HealthServicer()
        self._task: asyncio.Task[None] | None = None

    def add_service(self, service: str) -> None:
        """Add a service that probes do not ask: what it says is for people and for tests."""
        self._reasons[service] = ()

    def add_check(self, name: str, service: str, check: Check) -> None:
        """Add a check to `liveness`, `readiness` or a service that was added.

        Raises:
            ValueError: there is no such service.
        """
        if service not in self._reasons:
            raise ValueError(f"health checks belong to {', '.join(map(repr, self._reasons))}, not to {service!r}")
        self._checks.append(_NamedCheck(name, service, check))

    @property
    def reasons(self) -> Mapping[str, tuple[str, ...]]:
        """Why each service is unhealthy right now; empty where it is healthy."""
        return dict(self._reasons)

    def register(self, server: grpc.aio.Server) -> None:
        """Serve grpc.health.v1 on that server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Evaluate once, then every interval until `stop`; a second server with this health changes nothing."""
        await self.evaluate()
        if self._task is None:
            self._task = asyncio.create_task(self._evaluate_forever(), name="health")

    async def drain(self) -> None:
        """Make readiness fail for good, at once."""
        self._draining = True
        await self.evaluate()

    async def stop(self) -> None:
        """Stop evaluating; what was said last stays said."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def evaluate(self) -> None:
        """Ask every check, publish the result, and log what changed."""
        found: dict[str, list[str]] = {service: [] for service in self._reasons}
        if self._draining:
            found[READINESS].append("draining")
        failing = {service: set(reasons) for service, reasons in found.items()}
        for item in self._checks:
            reason = _ask(item)
            if reason is not None:
                found[item.service].append(f"{item.name}: {reason}")
                failing[item.service].add(item.name)
        for service, reasons in found.items():
            self._note_change(service, frozenset(failing[service]), reasons)
            self._reasons[service] = tuple(reasons)
            await self._publish(service, serving=not reasons)
        await self._publish(OVERALL, serving=not found[READINESS])

    async def _evaluate_forever(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.evaluate()

    def _note_change(self, service: str, failing: frozenset[str], reasons: list[str]) -> None:
        """Log when other checks fail than before; what a process still waits for when it starts is no warning."""
        before = self._failing.get(service, frozenset())
        self._failing[service] = failing
        if failing == before:
            return
        if failing:
            level = log.info if _STARTING in before else log.warning
            level("health.failing", health_service=service, reasons=reasons)
        else:
            log.info("health.serving", health_service=service)

    async def _publish(self, service: str, *, serving: bool) -> None:
        if self._published.get(service) is serving:
            return
        self._published[service] = serving
        states = health_pb2.HealthCheckResponse
        await self._servicer.set(service, states.SERVING if serving else states.NOT_SERVING)


def _ask(item: _NamedCheck) -> str | None:
    """Return the check's reason; one that raises fails, and does not keep the others from being asked."""
    try:
        return item.check()
    except Exception as error:  # noqa: BLE001
        return f"the check itself failed: {type(error).__name__}"
