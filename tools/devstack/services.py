"""The three services and the echo target as child processes: their addresses, their environment, their commands.

The environment names here are the services' own settings. What the caller's environment sets already wins over the
defaults below; only ports that are taken are replaced, and that is said.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from tools.devstack.console import Console
from tools.devstack.ports import LOOPBACK, preferred_port
from tools.devstack.process import ChildProcess, LineSink

DEFAULTS = {
    "PUNCTUAL_MONGODB_DATABASE": "punctual",
    "PUNCTUAL_AUTH_MODE": "development",
    "PUNCTUAL_METRICS_ADDRESS": f"{LOOPBACK}:0",
    "PUNCTUAL_LOG_FORMAT": "console",
    # The demo's target is on this machine, which targets may not be by default.
    "PUNCTUAL_ALLOWED_TARGETS": "127.0.0.0/8,::1/128",
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything listens, as host:port; each executor has a health address of its own."""

    scheduler_public: str
    scheduler_internal: str
    dispatcher_health: str
    executor_health: tuple[str, ...]
    echo_target: str


def choose_addresses(environment: Mapping[str, str], executors: int, say: LineSink) -> Addresses:
    """Take the configured addresses, else the default ports where they are free, else free ones."""

    def choose(setting: str, port: int) -> str:
        configured = environment.get(setting)
        if configured:
            return configured
        chosen = preferred_port(port)
        if chosen != port:
            say(f"port {port} is taken: {setting}={LOOPBACK}:{chosen}")
        return f"{LOOPBACK}:{chosen}"

    first_executor = choose("PUNCTUAL_EXECUTOR_HEALTH_ADDRESS", 7403)
    others = (f"{LOOPBACK}:{preferred_port(7500 + index)}" for index in range(1, executors))
    return Addresses(
        scheduler_public=choose("PUNCTUAL_SCHEDULER_PUBLIC_ADDRESS", 7400),
        scheduler_internal=choose("PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS", 7401),
        dispatcher_health=choose("PUNCTUAL_DISPATCHER_HEALTH_ADDRESS", 7402),
        executor_health=(first_executor, *others),
        echo_target=f"{LOOPBACK}:{preferred_port(7410)}",
    )


def service_environment(
    environment: Mapping[str, str], addresses: Addresses, *, mongodb_uri: str, redis_url: str
) -> dict[str, str]:
    """Return the environment that all services share."""
    return {
        **DEFAULTS,
        **environment,
        "PUNCTUAL_MONGODB_URI": mongodb_uri,
        "PUNCTUAL_REDIS_URL": redis_url,
        "PUNCTUAL_SCHEDULER_PUBLIC_ADDRESS": addresses.scheduler_public,
        "PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS": addresses.scheduler_internal,
        "PUNCTUAL_DISPATCHER_HEALTH_ADDRESS": addresses.dispatcher_health,
        "PYTHONUNBUFFERED": "1",
    }


@dataclass(frozen=True, slots=True)
class ServiceChildren:
    """The children by their place in the order of stopping, not yet started."""

    # Stopped first: executors report their last outcomes to the scheduler.
    clients: tuple[ChildProcess, ...]
    # Stopped when nobody calls them any more.
    servers: tuple[ChildProcess, ...]

    @property
    def all(self) -> tuple[ChildProcess, ...]:
        """All children, servers first."""
        return (*self.servers, *self.clients)


def service_children(addresses: Addresses, environment: Mapping[str, str], console: Console) -> ServiceChildren:
    """Describe the children: scheduler, dispatcher, executors and the echo target."""

    def child(name: str, module: str, *arguments: str, **changes: str) -> ChildProcess:
        argv = [sys.executable, "-m", module, *arguments]
        return ChildProcess(name, argv, output=console.sink(name), env={**environment, **changes})

    executors = [
        child(
            "executor" if len(addresses.executor_health) == 1 else f"executor-{index}",
            "services.executor",
            PUNCTUAL_EXECUTOR_HEALTH_ADDRESS=health,
        )
        for index, health in enumerate(addresses.executor_health)
    ]
    port = addresses.echo_target.rpartition(":")[2]
    return ServiceChildren(
        clients=(child("dispatcher", "services.dispatcher"), *executors),
        servers=(
            child("scheduler", "services.scheduler"),
            child("echo", "tools.devstack.echo_target", "--port", port),
        ),
    )
