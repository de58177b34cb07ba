"""The three services as they run in production: certificates on both ports, keys at rest, nobody believed."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.cluster import LOOPBACK, ServiceProcess
from tools.devstack.ports import free_ports
from tools.devstack.waiting import wait_until

SERVICES = ("scheduler", "dispatcher", "executor")


@pytest.fixture
async def services(
    mongo_uri: str, mongo_database: str, redis_database: str, tmp_path: Path
) -> AsyncIterator[dict[str, ServiceProcess]]:
    authority = Authority()
    public, internal, *health = free_ports(2 + len(SERVICES))
    shared = {
        "PUNCTUAL_AUTH_MODE": "production",
        "PUNCTUAL_MONGODB_URI": mongo_uri,
        "PUNCTUAL_MONGODB_DATABASE": mongo_database,
        "PUNCTUAL_REDIS_URL": redis_database,
        "PUNCTUAL_KEY_RING": f"first:{base64.b64encode(bytes(range(32))).decode()}",
        "PUNCTUAL_METRICS_ADDRESS": "",
        "PUNCTUAL_SCHEDULER_PUBLIC_ADDRESS": f"{LOOPBACK}:{public}",
        "PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS": f"{LOOPBACK}:{internal}",
    }
    processes = {}
    for name, port in zip(SERVICES, health, strict=True):
        files = authority.issue(name).write(tmp_path / name, authority.certificate)
        certificates = {
            "PUNCTUAL_INTERNAL_TLS_CERTIFICATE": str(files.certificate),
            "PUNCTUAL_INTERNAL_TLS_KEY": str(files.key),
            "PUNCTUAL_INTERNAL_TLS_CA": str(files.authority),
            "PUNCTUAL_PUBLIC_TLS_CERTIFICATE": str(files.certificate),
            "PUNCTUAL_PUBLIC_TLS_KEY": str(files.key),
            f"PUNCTUAL_{name.upper()}_HEALTH_ADDRESS": f"{LOOPBACK}:{port}",
        }
        log = tmp_path / f"{name}.log"
        processes[name] = ServiceProcess(name, f"services.{name}", {**shared, **certificates}, port, log)
        processes[name].start()
    yield processes
    for process in processes.values():
        await process.child.stop()


async def test_services_work_together_over_mutual_tls(services: dict[str, ServiceProcess]) -> None:
    for process in services.values():
        await process.ready()


async def test_service_with_anothers_certificate_gets_no_work(services: dict[str, ServiceProcess]) -> None:
    await services["dispatcher"].ready()
    await services["dispatcher"].child.stop()
    stolen = {name: value for name, value in services["executor"].environment.items() if "INTERNAL_TLS" in name}
    services["dispatcher"].start(**stolen)

    async def refused() -> bool:
        return "WRONG_SERVICE" in services["dispatcher"].log.read_text()

    await wait_until(refused, seconds=20, what="a refusal")
    assert not await services["dispatcher"].is_ready()
