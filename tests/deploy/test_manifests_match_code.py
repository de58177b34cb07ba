"""Entry points, ports, probes, environment and drain deadlines in the manifests are those of the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from libs.common.rpc.health import LIVENESS, READINESS
from libs.common.settings import ENV_PREFIX
from services.scheduler.settings import DatabaseSettings
from tests.deploy.manifests import (
    NAME_LABEL,
    SERVICES,
    Built,
    container_of,
    labels_of,
    pod_of,
    port_of,
    ports_of,
    selects,
)
from tests.support.certificates import Authority

EXIT_MARGIN_SECONDS = 5
"""Between the drain deadline and SIGKILL: for closing what is open."""
LISTENS = {
    "scheduler": {
        "grpc": "PUNCTUAL_SCHEDULER_PUBLIC_ADDRESS",
        "grpc-internal": "PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS",
        "health": "PUNCTUAL_SCHEDULER_HEALTH_ADDRESS",
        "metrics": "PUNCTUAL_METRICS_ADDRESS",
    },
    "dispatcher": {"health": "PUNCTUAL_DISPATCHER_HEALTH_ADDRESS", "metrics": "PUNCTUAL_METRICS_ADDRESS"},
    "executor": {"health": "PUNCTUAL_EXECUTOR_HEALTH_ADDRESS", "metrics": "PUNCTUAL_METRICS_ADDRESS"},
}
# What the secret manager of production holds.
SECRETS = {
    "PUNCTUAL_MONGODB_URI": "mongodb://user:password@mongodb.example:27017/?replicaSet=rs0&tls=true",
    "PUNCTUAL_KEY_RING": "k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "PUNCTUAL_REDIS_URL": "rediss://user:password@redis.example:6379/0",
}

every_service = pytest.mark.parametrize("service", SERVICES)


@every_service
def test_entry_point_is_a_module_that_can_be_run(overlay: Built, service: str) -> None:
    (module,) = container_of(overlay.service(service))["args"]
    assert module == f"services.{service}"
    assert importlib.util.find_spec(f"{module}.__main__") is not None


@every_service
def test_ports_are_those_that_the_service_is_told_to_listen_on(overlay: Built, service: str) -> None:
    deployment = overlay.service(service)
    environment = overlay.environment(deployment)
    assert ports_of(deployment) == {name: port_of(environment[setting]) for name, setting in LISTENS[service].items()}


@every_service
def test_probes_ask_the_health_port_for_names_that_it_serves(overlay: Built, service: str) -> None:
    deployment = overlay.service(service)
    container = container_of(deployment)
    names = {"startupProbe": LIVENESS, "livenessProbe": LIVENESS, "readinessProbe": READINESS}
    for probe, name in names.items():
        assert container[probe]["grpc"] == {"port": ports_of(deployment)["health"], "service": name}, probe


@every_service
def test_every_variable_is_a_setting_of_its_service(overlay: Built, service: str) -> None:
    known = {f"{ENV_PREFIX}{field}".upper() for field in SERVICES[service].model_fields}
    given = {name for name in overlay.environment(overlay.service(service)) if not name.startswith("OTEL_")}
    assert given <= known


@every_service
def test_service_starts_with_these_settings(
    overlay: Built, service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority()
    files = authority.issue(service).write(tmp_path, authority.certificate)
    mounted = {"tls.crt": files.certificate, "tls.key": files.key, "ca.crt": files.authority}
    for name, value in overlay.environment(overlay.service(service)).items():
        file = mounted.get(Path(value).name)
        monkeypatch.setenv(name, str(file) if file else value or SECRETS[name])
    SERVICES[service]()


@every_service
def test_certificate_files_are_mounted_where_the_settings_look(overlay: Built, service: str) -> None:
    deployment = overlay.service(service)
    mounts = {mount["mountPath"] for mount in container_of(deployment)["volumeMounts"]}
    volumes = {volume["name"] for volume in pod_of(deployment)["volumes"]}
    assert {mount["name"] for mount in container_of(deployment)["volumeMounts"]} <= volumes
    for name, value in overlay.environment(deployment).items():
        if "_TLS_" in name:
            assert str(Path(value).parent) in mounts


@every_service
def test_grace_period_outlasts_pre_stop_and_drain(overlay: Built, service: str) -> None:
    deployment = overlay.service(service)
    sleep = container_of(deployment).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drain = float(overlay.environment(deployment)["PUNCTUAL_DRAIN_SECONDS"])
    assert sleep + drain + EXIT_MARGIN_SECONDS <= pod_of(deployment)["terminationGracePeriodSeconds"]


def test_only_the_service_that_is_called_waits_before_it_drains(overlay: Built) -> None:
    waits = {name for name in SERVICES if "lifecycle" in container_of(overlay.service(name))}
    assert waits == {"scheduler"}


@pytest.mark.parametrize("service", ["dispatcher", "executor"])
def test_schedulers_are_called_by_a_headless_name_on_the_internal_port(overlay: Built, service: str) -> None:
    address = overlay.environment(overlay.service(service))["PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS"]
    name, _, port = address.partition(":")
    called = overlay.one("Service", name)
    assert called["spec"]["clusterIP"] == "None"
    (served,) = called["spec"]["ports"]
    assert served["port"] == int(port) == ports_of(overlay.service("scheduler"))[served["targetPort"]]
    assert "." not in name, "with dots the cluster's search path would be asked first, or not at all"


def test_services_select_pods_that_have_the_port(overlay: Built) -> None:
    for service in overlay.of("Service"):
        pods = [
            item
            for item in overlay.workloads()
            if selects({"matchLabels": service["spec"]["selector"]}, labels_of(item))
        ]
        assert pods, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            for pod in pods:
                assert target in {*ports_of(pod), *ports_of(pod).values()}


def test_shards_are_the_same_for_those_who_write_and_read(overlay: Built) -> None:
    shards = {
        overlay.environment(overlay.service(name))["PUNCTUAL_STREAM_SHARDS"] for name in ("dispatcher", "executor")
    }
    assert len(shards) == 1


def test_migration_runs_the_admin_command_with_the_schedulers_database(built: dict[str, Built]) -> None:
    job = built["prod/migration"].one("Job", "punctual-migration")
    module, command = container_of(job)["args"]
    assert importlib.util.find_spec(module) is not None
    assert command == "migrate"
    (variable,) = container_of(job)["env"]
    required = {
        f"{ENV_PREFIX}{name}".upper() for name, field in DatabaseSettings.model_fields.items() if field.is_required()
    }
    assert {variable["name"]} == required
    assert variable in container_of(built["prod"].service("scheduler"))["env"]


def test_all_of_a_version_run_one_image(built: dict[str, Built]) -> None:
    deployed = [built["prod"].service(name) for name in SERVICES]
    images = {container_of(item)["image"] for item in [*deployed, *built["prod/migration"].workloads()]}
    assert len(images) == 1
    assert not images.pop().endswith(":latest")


def test_labels_of_pods_are_what_deployments_and_policies_go_by(overlay: Built) -> None:
    for workload in overlay.workloads():
        assert selects(workload["spec"]["selector"], labels_of(workload))
        assert labels_of(workload)[NAME_LABEL] == workload["metadata"]["name"]
