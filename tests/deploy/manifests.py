"""Reads what kustomize built: objects by kind and name, a container's environment, what a network policy lets through.

A network policy is judged as Kubernetes does it: a pod that a policy selects for a direction may do what one of those
policies allows, and nothing else.
"""

from __future__ import annotations

import base64
import ipaddress
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from libs.common.settings import ServiceSettings
from services.dispatcher.settings import DispatcherSettings
from services.executor.settings import ExecutorSettings
from services.scheduler.settings import SchedulerSettings

REPOSITORY = Path(__file__).parents[2]
K8S = REPOSITORY / "deploy" / "k8s"
OVERLAYS = {
    "base": K8S / "base",
    "dev": K8S / "overlays" / "dev",
    "prod": K8S / "overlays" / "prod",
    "prod/migration": K8S / "overlays" / "prod" / "migration",
    "executors by CPU": Path(__file__).parent / "overlays" / "executors-by-cpu",
}
SERVICES: dict[str, type[ServiceSettings]] = {
    "scheduler": SchedulerSettings,
    "dispatcher": DispatcherSettings,
    "executor": ExecutorSettings,
}
NAME_LABEL = "app.kubernetes.io/name"

Object = dict[str, Any]


def kubectl() -> str:
    """Return the pinned kubectl of the environment, elsewhere the one on PATH."""
    pinned = Path(sys.executable).with_name("kubectl")
    found = str(pinned) if pinned.exists() else shutil.which("kubectl")
    assert found, "kubectl is needed: it comes with the development dependencies on Linux, elsewhere put it on PATH"
    return found


@dataclass(frozen=True)
class Built:
    """All objects of one overlay."""

    objects: tuple[Object, ...]

    @classmethod
    def parse(cls, text: str) -> Built:
        return cls(tuple(item for item in yaml.safe_load_all(text) if item))

    def of(self, kind: str) -> list[Object]:
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        found = [item for item in self.of(kind) if item["metadata"]["name"] == name]
        assert len(found) == 1, f"{kind} {name}: {len(found)} of them"
        return found[0]

    def workloads(self) -> list[Object]:
        return [item for item in self.objects if item["kind"] in {"Deployment", "StatefulSet", "Job"}]

    def service(self, name: str) -> Object:
        """The deployment of one of the three services."""
        return self.one("Deployment", f"punctual-{name}")

    def environment(self, workload: Object) -> dict[str, str]:
        """What the container finds in its environment; secrets that are not part of the build have no value."""
        container = container_of(workload)
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self.one("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            found[variable["name"]] = self._secret(**reference) if reference else variable["value"]
        return found

    def _secret(self, name: str, key: str) -> str:
        secrets = [item for item in self.of("Secret") if item["metadata"]["name"] == name]
        return base64.b64decode(secrets[0]["data"][key]).decode() if secrets else ""


def pod_of(workload: Object) -> Object:
    return dict(workload["spec"]["template"]["spec"])


def labels_of(workload: Object) -> Mapping[str, str]:
    return dict(workload["spec"]["template"]["metadata"]["labels"])


def container_of(workload: Object) -> Object:
    (container,) = pod_of(workload)["containers"]
    return dict(container)


def ports_of(workload: Object) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container_of(workload).get("ports", [])}


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


@dataclass(frozen=True)
class Network:
    """What the network policies of an overlay let through."""

    built: Built

    def allows(self, source: Mapping[str, str], target: Mapping[str, str], port: int) -> bool:
        """Whether a pod reaches another one of the same namespace: the one's way out and the other's way in."""
        return self._passes(source, "Egress", target, port) and self._passes(target, "Ingress", source, port)

    def admits_anybody(self, target: Mapping[str, str], port: int) -> bool:
        """Whether a pod of the namespace that is none of ours gets in."""
        return self._passes(target, "Ingress", {"app": "stranger"}, port)

    def reaches(self, source: Mapping[str, str], address: str, port: int) -> bool:
        """Whether a pod reaches an address outside of the cluster."""
        ip = ipaddress.ip_address(address)
        return any(
            ip in ipaddress.ip_network(block["cidr"])
            and not any(ip in ipaddress.ip_network(hole) for hole in block.get("except", []))
            for rule in self._rules(source, "Egress")
            if _port_fits(rule, port)
            for peer in rule.get("to", [])
            if (block := peer.get("ipBlock"))
        )

    def closed(self, labels: Mapping[str, str], direction: str) -> bool:
        """Whether some policy selects the pod, so that what is not allowed is refused."""
        return any(self._policies(labels, direction))

    def _passes(self, pod: Mapping[str, str], direction: str, peer: Mapping[str, str], port: int) -> bool:
        if not self.closed(pod, direction):
            return True
        side = "to" if direction == "Egress" else "from"
        return any(
            selects(one["podSelector"], peer)
            for rule in self._rules(pod, direction)
            if _port_fits(rule, port)
            for one in rule.get(side, [])
            if "podSelector" in one
        )

    def _rules(self, labels: Mapping[str, str], direction: str) -> Iterator[Object]:
        for policy in self._policies(labels, direction):
            yield from policy["spec"].get(direction.lower(), [])

    def _policies(self, labels: Mapping[str, str], direction: str) -> Iterator[Object]:
        for policy in self.built.of("NetworkPolicy"):
            if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], labels):
                yield policy


def _port_fits(rule: Object, port: int) -> bool:
    return any(item["port"] <= port <= item.get("endPort", item["port"]) for item in rule["ports"])
