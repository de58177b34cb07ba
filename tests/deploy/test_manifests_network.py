"""Who reaches whom: only executors reach out, only services reach the internal port, stores are closed."""

from __future__ import annotations

import ipaddress

import pytest

from services.executor.domain.address_guard import AddressGuard
from tests.deploy.manifests import SERVICES, Built, Network, container_of, labels_of, ports_of

WORLD = ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c")
INSIDE = (
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.0.1",
    "224.0.0.1",
    "::1",
    "::ffff:10.0.0.1",
    "fd00::1",
    "fe80::1",
    "ff02::1",
)


@pytest.fixture
def network(overlay: Built) -> Network:
    return Network(overlay)


def test_every_pod_is_closed_in_both_directions_but_for_what_is_allowed(overlay: Built, network: Network) -> None:
    for workload in overlay.workloads():
        assert network.closed(labels_of(workload), "Ingress")
        assert network.closed(labels_of(workload), "Egress")
    assert network.closed({"app": "stranger"}, "Ingress"), "default-deny"


def test_only_executors_reach_the_world(overlay: Built, network: Network) -> None:
    for workload in overlay.workloads():
        out = any(network.reaches(labels_of(workload), address, 443) for address in WORLD)
        assert out == (workload["metadata"]["name"] == "punctual-executor"), workload["metadata"]["name"]


def test_executors_do_not_reach_inside_addresses(overlay: Built, network: Network) -> None:
    executor = labels_of(overlay.service("executor"))
    guard = AddressGuard()
    for address in INSIDE:
        # Production's documentation networks stand for the stores; none of these is in them.
        assert not network.reaches(executor, address, 443), address
        assert not guard.permits("target", [address], 443), f"{address}: the executor's own guard says otherwise"
    policy = overlay.one("NetworkPolicy", "punctual-executor-world")["spec"]
    for block in [peer["ipBlock"] for rule in policy["egress"] for peer in rule["to"]]:
        for hole in block["except"]:
            first = str(ipaddress.ip_network(hole).network_address)
            assert not guard.permits("target", [first], 443), f"{hole}: the executor's own guard lets it through"


def test_only_dispatchers_and_executors_reach_the_internal_port(overlay: Built, network: Network) -> None:
    scheduler = overlay.service("scheduler")
    port = ports_of(scheduler)["grpc-internal"]
    for workload in overlay.workloads():
        expected = workload["metadata"]["name"] in {"punctual-dispatcher", "punctual-executor"}
        assert network.allows(labels_of(workload), labels_of(scheduler), port) == expected
    assert not network.admits_anybody(labels_of(scheduler), port)


def test_nobody_calls_dispatchers_and_executors(overlay: Built, network: Network) -> None:
    for name in ("dispatcher", "executor"):
        for workload in overlay.workloads():
            assert not network.allows(
                labels_of(workload), labels_of(overlay.service(name)), ports_of(overlay.service(name))["health"]
            )


def test_stores_of_development_are_open_to_their_owners_only(built: dict[str, Built]) -> None:
    development = built["dev"]
    network = Network(development)
    stores = {
        ("StatefulSet", "mongodb", 27017): {"punctual-scheduler"},
        ("Deployment", "valkey", 6379): {"punctual-dispatcher", "punctual-executor"},
    }
    for (kind, name, port), owners in stores.items():
        store = development.one(kind, name)
        assert port in ports_of(store).values()
        reaching = {
            workload["metadata"]["name"]
            for workload in development.workloads()
            if network.allows(labels_of(workload), labels_of(store), port)
        }
        assert reaching == owners
        assert not network.admits_anybody(labels_of(store), port)
        assert not any(network.reaches(labels_of(store), address, 443) for address in WORLD)


def test_stores_of_production_are_reached_by_their_owners_only(built: dict[str, Built]) -> None:
    network = Network(built["prod"])
    reaching = {
        (service, port): network.reaches(labels_of(built["prod"].service(service)), address, port)
        for service in ("scheduler", "dispatcher")
        for address, port in (("192.0.2.1", 27017), ("198.51.100.1", 6379))
    }
    assert reaching == {
        ("scheduler", 27017): True,
        ("scheduler", 6379): False,
        ("dispatcher", 27017): False,
        ("dispatcher", 6379): True,
    }


def test_migration_reaches_its_database_before_anything_else_is_rolled_out(built: dict[str, Built]) -> None:
    build = built["prod/migration"]
    migration = labels_of(build.one("Job", "punctual-migration"))
    network = Network(build)
    assert network.reaches(migration, "192.0.2.1", 27017)
    assert not network.reaches(migration, "192.0.2.1", 443)
    assert network.closed(migration, "Ingress")
    assert build.one("NetworkPolicy", "dns")["spec"]["podSelector"] == {}


def test_migration_changes_no_policy_of_the_services(built: dict[str, Built]) -> None:
    for policy in built["prod/migration"].of("NetworkPolicy"):
        if policy["metadata"]["name"] != "punctual-migration":
            assert policy == built["prod"].one("NetworkPolicy", policy["metadata"]["name"])


def test_every_service_resolves_names(overlay: Built) -> None:
    (dns,) = [item for item in overlay.of("NetworkPolicy") if item["metadata"]["name"] == "dns"]
    assert dns["spec"]["podSelector"] == {}
    assert {(port["protocol"], port["port"]) for port in dns["spec"]["egress"][0]["ports"]} == {
        ("UDP", 53),
        ("TCP", 53),
    }


def test_metrics_ports_are_open_to_monitoring_only(built: dict[str, Built]) -> None:
    production = built["prod"]
    network = Network(production)
    for service in SERVICES:
        deployment = production.service(service)
        assert container_of(deployment)["ports"][-1]["name"] == "metrics"
        assert not network.admits_anybody(labels_of(deployment), ports_of(deployment)["metrics"])
    policy = production.one("NetworkPolicy", "punctual-metrics")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels_of(deployment).items()
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": ports_of(deployment)["metrics"]}]
