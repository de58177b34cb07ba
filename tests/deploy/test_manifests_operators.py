"""What autoscalers, cert-manager and the Prometheus operator are told fits the code and each other."""

from __future__ import annotations

import re

import pytest
import yaml

from libs.common.streams.due_stream import GROUP, DueStream
from services.dispatcher.settings import DispatcherSettings
from services.scheduler.settings import SchedulerSettings
from tests.deploy.manifests import REPOSITORY, SERVICES, Built, labels_of, pod_of, ports_of, selects


@pytest.fixture
def production(built: dict[str, Built]) -> Built:
    return built["prod"]


def test_autoscaled_deployments_leave_their_number_to_the_autoscaler(built: dict[str, Built]) -> None:
    for result in built.values():
        for scaler in [*result.of("HorizontalPodAutoscaler"), *result.of("ScaledObject")]:
            deployment = result.one("Deployment", scaler["spec"]["scaleTargetRef"]["name"])
            assert "replicas" not in deployment["spec"]


def test_autoscalers_keep_at_least_two(built: dict[str, Built]) -> None:
    lowest = [
        scaler["spec"].get("minReplicas") or scaler["spec"].get("minReplicaCount")
        for result in built.values()
        for scaler in [*result.of("HorizontalPodAutoscaler"), *result.of("ScaledObject")]
    ]
    assert len(lowest) == 3
    assert min(lowest) >= 2


def test_executors_scale_on_the_stream_that_dispatchers_write(production: Built) -> None:
    scaled = production.one("ScaledObject", "punctual-executor")["spec"]
    streams = [item["metadata"] for item in scaled["triggers"] if item["type"] == "redis-streams"]
    environment = production.environment(production.service("dispatcher"))
    shards = int(environment["PUNCTUAL_STREAM_SHARDS"])
    prefix = environment.get("PUNCTUAL_REDIS_KEY_PREFIX", DispatcherSettings.model_fields["redis_key_prefix"].default)
    due_stream = DueStream(None, key_prefix=prefix, shards=shards)  # type: ignore[arg-type] # asked for names only
    assert [item["stream"] for item in streams] == [due_stream.key(shard) for shard in range(shards)]
    assert {item["consumerGroup"] for item in streams} == {GROUP}
    assert all(isinstance(value, str) for item in scaled["triggers"] for value in item["metadata"].values())
    bound = DispatcherSettings.model_fields["max_stream_backlog"].default
    assert all(int(item["lagCount"]) < bound for item in streams), "dispatchers stop above the bound"


def test_the_queue_can_grow_as_long_as_its_alert_says() -> None:
    rules = yaml.safe_load((REPOSITORY / "deploy" / "monitoring" / "alerts.yaml").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    (threshold,) = (found for text in expressions for found in re.findall(r"stream_lag_entries\) > (\d+)", text))
    assert int(threshold) < DispatcherSettings.model_fields["max_stream_backlog"].default


def test_certificates_carry_the_names_that_are_asked_for(production: Built) -> None:
    names = {item["spec"]["secretName"]: item["spec"].get("dnsNames", []) for item in production.of("Certificate")}
    for service in ("dispatcher", "executor"):
        address = production.environment(production.service(service))["PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS"]
        assert address.partition(":")[0] in names["punctual-scheduler-internal-tls"]
        expected = SchedulerSettings.model_fields[f"internal_{service}_names"].default
        assert set(names[f"punctual-{service}-internal-tls"]) <= set(expected)
    assert "punctual-scheduler" in names["punctual-public-tls"]


def test_mounted_certificates_are_issued(production: Built) -> None:
    issued = {item["spec"]["secretName"] for item in production.of("Certificate")}
    mounted = {
        volume["secret"]["secretName"]
        for service in SERVICES
        for volume in pod_of(production.service(service))["volumes"]
        if "secret" in volume
    }
    assert mounted == issued - {"punctual-internal-ca"}


def test_issuers_exist(production: Built) -> None:
    issuers = {item["metadata"]["name"] for item in production.of("Issuer")}
    assert {item["spec"]["issuerRef"]["name"] for item in production.of("Certificate")} <= issuers


def test_prometheus_finds_the_metrics_port_of_every_pod(production: Built) -> None:
    monitor = production.one("ServiceMonitor", "punctual")["spec"]
    (service,) = [
        item for item in production.of("Service") if selects(monitor["selector"], item["metadata"].get("labels", {}))
    ]
    ports = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
    for name in SERVICES:
        deployment = production.service(name)
        assert selects({"matchLabels": service["spec"]["selector"]}, labels_of(deployment))
        assert {ports[endpoint["port"]] for endpoint in monitor["endpoints"]} <= set(ports_of(deployment))


def test_alerts_are_those_of_the_rule_file(production: Built) -> None:
    rules = yaml.safe_load((REPOSITORY / "deploy" / "monitoring" / "alerts.yaml").read_text())
    assert production.one("PrometheusRule", "punctual")["spec"] == rules
