"""Every pod is as confined as the strictest of the Pod Security Standards asks, and survives a node's drain."""

from __future__ import annotations

import yaml

from tests.deploy.manifests import (
    K8S,
    NAME_LABEL,
    SERVICES,
    Built,
    Object,
    container_of,
    labels_of,
    pod_of,
    selects,
)


def pods(built: dict[str, Built]) -> list[tuple[str, Object]]:
    return [
        (f"{overlay}: {workload['metadata']['name']}", workload)
        for overlay, result in built.items()
        for workload in result.workloads()
    ]


def test_pods_are_confined(built: dict[str, Built]) -> None:
    for name, workload in pods(built):
        pod, container = pod_of(workload), container_of(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


def test_pods_hold_no_token_of_the_cluster_and_no_links_to_its_services(built: dict[str, Built]) -> None:
    for name, workload in pods(built):
        assert pod_of(workload)["automountServiceAccountToken"] is False, name
        assert pod_of(workload)["enableServiceLinks"] is False, f"{name}: links are variables named like our settings"


def test_each_service_has_an_account_of_its_own(overlay: Built) -> None:
    for service in SERVICES:
        name = pod_of(overlay.service(service))["serviceAccountName"]
        assert name == f"punctual-{service}"
        assert overlay.one("ServiceAccount", name)["automountServiceAccountToken"] is False


def test_pods_ask_for_what_they_need_and_are_bounded_in_memory(built: dict[str, Built]) -> None:
    for name, workload in pods(built):
        resources = container_of(workload)["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}, name
        assert set(resources["limits"]) == {"memory"}, f"{name}: a throttled process is a late one"


def test_scratch_space_is_bounded(built: dict[str, Built]) -> None:
    for name, workload in pods(built):
        if labels_of(workload)[NAME_LABEL].startswith("punctual-"):
            for volume in pod_of(workload).get("volumes", []):
                assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), name


def test_replicas_spread_over_zones_and_nodes(overlay: Built) -> None:
    for service in SERVICES:
        deployment = overlay.service(service)
        rules = pod_of(deployment)["topologySpreadConstraints"]
        assert {rule["topologyKey"] for rule in rules} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        assert all(selects(rule["labelSelector"], labels_of(deployment)) for rule in rules)


def test_drains_of_nodes_take_one_replica_at_a_time(overlay: Built) -> None:
    for service in SERVICES:
        budget = overlay.one("PodDisruptionBudget", f"punctual-{service}")["spec"]
        assert selects(budget["selector"], labels_of(overlay.service(service)))
        assert budget["maxUnavailable"] == 1, "minAvailable would block the drain of a node where one replica runs"


def test_rollout_never_lowers_capacity(overlay: Built) -> None:
    for service in SERVICES:
        strategy = overlay.service(service)["spec"]["strategy"]
        assert strategy["type"] == "RollingUpdate"
        assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_production_names_its_secrets_and_builds_none(built: dict[str, Built]) -> None:
    example = list(yaml.safe_load_all((K8S / "overlays" / "prod" / "secrets.example.yaml").read_text()))
    known = {(item["metadata"]["name"], key) for item in example for key in item["stringData"]}
    production = built["prod"]
    assert not production.of("Secret")
    asked = [
        (variable["valueFrom"]["secretKeyRef"]["name"], variable["valueFrom"]["secretKeyRef"]["key"])
        for service in SERVICES
        for variable in container_of(production.service(service))["env"]
    ]
    asked += [
        (item["name"], item["key"])
        for authentication in production.of("TriggerAuthentication")
        for item in authentication["spec"]["secretTargetRef"]
    ]
    assert set(asked) == known
